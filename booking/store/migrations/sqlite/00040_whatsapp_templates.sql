-- The templates that WhatsApp has approved for an organization's messages.

-- +goose Up
-- content_sid names the template at Twilio; variables are what it says at its own
-- gaps, by name.
CREATE TABLE whatsapp_templates (
    organization_id text NOT NULL REFERENCES organizations (id),
    template        text NOT NULL,
    lang            text NOT NULL CHECK (lang IN ('en', 'ar')),
    content_sid     text NOT NULL,
    variables       text NOT NULL,
    updated_at      datetime NOT NULL,
    PRIMARY KEY (organization_id, template, lang)
);

-- +goose Down
DROP TABLE whatsapp_templates;
