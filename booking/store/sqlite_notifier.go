package store

import (
	"context"
	"strconv"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riversqlite"
)

// inProcessNotifier wakes River when jobs were committed. SQLite announces nothing, but its
// database belongs to this process; River's own way is to read a table of
// announcements twenty times a second.
type inProcessNotifier struct{ queues chan string }

// maxNotified bounds the notifications that wait. Further ones are dropped: River finds
// the jobs at its next poll.
const maxNotified = 256

func newInProcessNotifier() *inProcessNotifier {
	return &inProcessNotifier{make(chan string, maxNotified)}
}

// notify announces jobs that have just been committed.
func (b *inProcessNotifier) notify(list []river.InsertManyParams) {
	last := ""
	for _, j := range list {
		if j.InsertOpts.Queue == last {
			continue
		}
		last = j.InsertOpts.Queue
		select {
		case b.queues <- last:
		default:
		}
	}
}

// notifierDriver is River's driver of SQLite with an inProcessNotifier instead of that
// table.
type notifierDriver struct {
	*riversqlite.Driver
	notifier *inProcessNotifier
}

// SupportsListenNotify keeps River from writing announcements into the database.
func (notifierDriver) SupportsListenNotify() bool { return false }

// GetListener implements riverdriver.Driver.
func (d notifierDriver) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return d.notifier
}

// topicInsert is River's topic for jobs that were inserted.
const topicInsert = "river_insert"

// WaitForNotification implements riverdriver.Listener.
func (b *inProcessNotifier) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	select {
	case queue := <-b.queues:
		return &riverdriver.Notification{Topic: topicInsert, Payload: `{"queue": ` + strconv.Quote(queue) + `}`}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// The rest of riverdriver.Listener: there is no connection to look after.

func (*inProcessNotifier) Connect(context.Context) error          { return nil }
func (*inProcessNotifier) Close(context.Context) error            { return nil }
func (*inProcessNotifier) Ping(context.Context) error             { return nil }
func (*inProcessNotifier) Listen(context.Context, string) error   { return nil }
func (*inProcessNotifier) Unlisten(context.Context, string) error { return nil }
func (*inProcessNotifier) Schema() string                         { return "" }
func (*inProcessNotifier) SetAfterConnectExec(string)             {}
