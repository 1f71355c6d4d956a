package store

import (
	"context"
	"strconv"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riversqlite"
)

// bell wakes River when jobs were committed. SQLite announces nothing, but its
// database belongs to this process; River's own way is to read a table of
// announcements twenty times a second.
type bell struct{ rung chan string }

// maxRung bounds how many rings may wait. One too many is left out: what is
// announced is found by the next look anyway.
const maxRung = 256

func newBell() *bell { return &bell{make(chan string, maxRung)} }

// ring announces jobs that have just been committed.
func (b *bell) ring(list []river.InsertManyParams) {
	last := ""
	for _, j := range list {
		if j.InsertOpts.Queue == last {
			continue
		}
		last = j.InsertOpts.Queue
		select {
		case b.rung <- last:
		default:
		}
	}
}

// bellDriver is River's driver of SQLite with a bell instead of that table.
type bellDriver struct {
	*riversqlite.Driver
	bell *bell
}

// SupportsListenNotify keeps River from writing announcements into the database.
func (bellDriver) SupportsListenNotify() bool { return false }

// GetListener implements riverdriver.Driver.
func (d bellDriver) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener { return d.bell }

// topicInsert is River's topic for jobs that were inserted.
const topicInsert = "river_insert"

// WaitForNotification implements riverdriver.Listener.
func (b *bell) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	select {
	case queue := <-b.rung:
		return &riverdriver.Notification{Topic: topicInsert, Payload: `{"queue": ` + strconv.Quote(queue) + `}`}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// The rest of riverdriver.Listener: there is no connection to look after.

func (*bell) Connect(context.Context) error          { return nil }
func (*bell) Close(context.Context) error            { return nil }
func (*bell) Ping(context.Context) error             { return nil }
func (*bell) Listen(context.Context, string) error   { return nil }
func (*bell) Unlisten(context.Context, string) error { return nil }
func (*bell) Schema() string                         { return "" }
func (*bell) SetAfterConnectExec(string)             {}
