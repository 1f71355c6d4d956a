-- Nobody who is erased comes back with a booking that was under way.

-- +goose Up
-- +goose StatementBegin
CREATE TRIGGER bookings_of_erased BEFORE INSERT ON bookings
WHEN EXISTS (SELECT 1 FROM customers WHERE id = NEW.customer_id AND erased_at IS NOT NULL)
BEGIN
    SELECT RAISE(ABORT, 'bookings_of_erased');
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER bookings_of_erased;
