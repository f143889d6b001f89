package backup

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestPick(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 3, 30, 0, 0, time.Local) }
	all := []Backup{
		{ID: "aaaa1111", Host: "h1", Pool: "fast", Volume: "db", Started: day(1)},
		{ID: "bbbb2222", Host: "h2", Pool: "fast", Volume: "db", Started: day(2)},
		{ID: "cccc3333", Host: "h1", Pool: "fast", Volume: "db", Started: day(3)},
		{ID: "cccc4444", Host: "h1", Pool: "fast", Volume: "two", Started: day(3)},
		{ID: "dddd5555", Host: "h1", Pool: "slow", Volume: "two", Started: day(4)},
		{ID: "eeee6666", Host: "h2", Pool: "fast", Volume: "theirs", Started: day(4)},
		{ID: "eeee7777", Host: "h2", Pool: "fast", Volume: "both", Started: day(4)},
		{ID: "eeee8888", Host: "h3", Pool: "fast", Volume: "both", Started: day(5)},
		{ID: "ffff9999", Host: "h1", Pool: "fast", Volume: "aaaa", Started: day(5)},
	}
	for _, tt := range []struct {
		want  Wanted
		id    string
		class error
		text  string
	}{
		{want: Wanted{Of: "bbbb"}, id: "bbbb2222"},
		{want: Wanted{Of: "db"}, id: "cccc3333"},
		{want: Wanted{Of: "db", At: day(2)}, id: "aaaa1111"}, // that of the other host is not meant
		{want: Wanted{Of: "db", At: day(3)}, id: "cccc3333"},
		{want: Wanted{Of: "db", At: day(1).Add(-time.Second)}, class: errdefs.ErrNotFound, text: `volume "db": no backup from before 2026-11-01 03:29:59; the oldest is of 2026-11-01 03:30:00`},
		{want: Wanted{Of: "theirs"}, id: "eeee6666"},
		{want: Wanted{Of: "both"}, class: errdefs.ErrInvalid, text: "several hosts: h2, h3"},
		{want: Wanted{Of: "two"}, class: errdefs.ErrInvalid, text: "several pools: fast, slow"},
		{want: Wanted{Of: "two", Pool: "fast"}, id: "cccc4444"},
		{want: Wanted{Of: "db", Pool: "slow"}, id: "cccc3333"},
		{want: Wanted{Of: "aaaa"}, class: errdefs.ErrInvalid, text: "is a volume, and the beginning of an ID"},
		{want: Wanted{Of: "aaaa1"}, id: "aaaa1111"},
		{want: Wanted{Of: "cccc"}, class: errdefs.ErrInvalid, text: "more than one"},
		{want: Wanted{Of: "bbbb", At: day(9)}, class: errdefs.ErrInvalid, text: "name a volume"},
		{want: Wanted{Of: "gone"}, class: errdefs.ErrNotFound, text: "no backup has this ID"},
		{want: Wanted{Of: ""}, class: errdefs.ErrNotFound},
	} {
		b, err := pick(all, "h1", tt.want)
		if b.ID != tt.id || !errors.Is(err, tt.class) || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%+v is %q, %v, want %q, %v %s", tt.want, b.ID, err, tt.id, tt.class, tt.text)
		}
	}
}
