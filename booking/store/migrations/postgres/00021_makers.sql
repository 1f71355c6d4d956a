-- Who made an API key: a key loses the scope admin with its maker's role.

-- +goose Up
-- maker_kind and maker_id are as in the audit. member_id is the member who made
-- the key, or who made the key that did; empty without one.
ALTER TABLE api_keys ADD COLUMN maker_kind text NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN maker_id text NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN member_id text NOT NULL DEFAULT '';

-- The audit knows who made or rotated the keys there are. A rotation names the
-- key before and has the time of the new one.
UPDATE api_keys SET
    maker_kind = COALESCE((SELECT a.actor_kind FROM audit a WHERE a.organization_id = COALESCE(api_keys.organization_id, '')
        AND (a.action = 'createKey' AND a.subject_id = api_keys.id OR a.action = 'rotateKey' AND a.created_at = api_keys.created_at)
        ORDER BY a.id LIMIT 1), ''),
    maker_id = COALESCE((SELECT a.actor_id FROM audit a WHERE a.organization_id = COALESCE(api_keys.organization_id, '')
        AND (a.action = 'createKey' AND a.subject_id = api_keys.id OR a.action = 'rotateKey' AND a.created_at = api_keys.created_at)
        ORDER BY a.id LIMIT 1), '');
UPDATE api_keys SET member_id = maker_id WHERE maker_kind = 'member';
-- A key made by such a key.
UPDATE api_keys SET member_id = (SELECT m.member_id FROM api_keys m WHERE m.id = api_keys.maker_id)
WHERE maker_kind = 'organization' AND EXISTS (SELECT 1 FROM api_keys m WHERE m.id = api_keys.maker_id);

-- +goose Down
ALTER TABLE api_keys DROP COLUMN member_id;
ALTER TABLE api_keys DROP COLUMN maker_id;
ALTER TABLE api_keys DROP COLUMN maker_kind;
