-- The bookings of who is erased change no more, so that nobody writes down again
-- what they said of an appointment that was past.

-- +goose Up
DROP TRIGGER bookings_of_erased ON bookings;
CREATE TRIGGER bookings_of_erased AFTER INSERT OR UPDATE OF status ON bookings FOR EACH ROW EXECUTE FUNCTION bookings_of_erased();

-- +goose Down
DROP TRIGGER bookings_of_erased ON bookings;
CREATE TRIGGER bookings_of_erased AFTER INSERT ON bookings FOR EACH ROW EXECUTE FUNCTION bookings_of_erased();
