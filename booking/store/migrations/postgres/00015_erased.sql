-- Nobody who is erased comes back with a booking that was under way.

-- +goose Up
-- By its name it comes after the checks of foreign keys, which wait until an
-- erasure that is under way has ended.
-- +goose StatementBegin
CREATE FUNCTION bookings_of_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM customers WHERE id = NEW.customer_id AND erased_at IS NOT NULL) THEN
        RAISE EXCEPTION 'bookings_of_erased' USING ERRCODE = 'check_violation', CONSTRAINT = 'bookings_of_erased';
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER bookings_of_erased AFTER INSERT ON bookings FOR EACH ROW EXECUTE FUNCTION bookings_of_erased();

-- +goose Down
DROP TRIGGER bookings_of_erased ON bookings;
DROP FUNCTION bookings_of_erased;
