-- Tenants read why a delivery failed: one word of a fixed list. The texts written
-- before named resolvers and addresses inside the network.

-- +goose Up
UPDATE webhook_attempts SET error = CASE
	WHEN error LIKE 'The name leads to%' THEN 'forbidden_address'
	WHEN error LIKE '%lookup %' OR error LIKE '%no such host%' THEN 'dns'
	WHEN error = 'No answer in time.' THEN 'timeout'
	WHEN error LIKE '%connection refused%' THEN 'refused'
	WHEN error LIKE '%no route to host%' OR error LIKE '%network is unreachable%' THEN 'unreachable'
	WHEN error LIKE '%tls:%' OR error LIKE '%x509:%' OR error LIKE '%HTTPS%' THEN 'tls'
	WHEN error LIKE '%EOF%' OR error LIKE '%connection reset%' OR error LIKE '%broken pipe%' THEN 'closed'
	ELSE 'protocol' END
WHERE error <> '';
UPDATE webhook_attempts SET error = CASE
	WHEN status_code < 400 THEN 'status_3xx' WHEN status_code < 500 THEN 'status_4xx' ELSE 'status_5xx' END
WHERE status_code >= 300;

-- +goose Down
SELECT 1;
