-- The latest word of contact about how to reach a human, as a serialized shop.contact.v1.ContactOptions.
CREATE TABLE hotline (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL,
    contact_options bytea NOT NULL
);
