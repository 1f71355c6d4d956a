-- The bookings of who is erased change no more, so that nobody writes down again
-- what they said of an appointment that was past.

-- +goose Up
-- +goose StatementBegin
CREATE TRIGGER bookings_of_erased_change BEFORE UPDATE OF status ON bookings
WHEN EXISTS (SELECT 1 FROM customers WHERE id = NEW.customer_id AND erased_at IS NOT NULL)
BEGIN
    SELECT RAISE(ABORT, 'bookings_of_erased');
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER bookings_of_erased_change;
