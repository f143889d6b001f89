package pool

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestClaims(t *testing.T) {
	names := map[Use]string{Looking: "looking", BackingUp: "backing up", Changing: "changing"}
	for _, tt := range []struct {
		first, second Use
		ok            bool
	}{
		{Looking, Looking, true},
		{Looking, BackingUp, true},
		{BackingUp, Looking, true},
		{BackingUp, BackingUp, false},
		{Looking, Changing, false},
		{Changing, Looking, false},
		{BackingUp, Changing, false},
		{Changing, BackingUp, false},
		{Changing, Changing, false},
	} {
		t.Run(names[tt.first]+" and "+names[tt.second], func(t *testing.T) {
			var c Claims
			own, release, err := c.Take(t.Context(), "a", "db", tt.first, "the first")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Check(own, "a", "db", tt.second); err != nil {
				t.Errorf("the holder is kept out by himself: %v", err)
			}
			for _, other := range [][2]string{{"a", "web"}, {"b", "db"}} {
				if err := c.Check(t.Context(), other[0], other[1], Changing); err != nil {
					t.Errorf("%v is kept out: %v", other, err)
				}
			}
			_, again, err := c.Take(t.Context(), "a", "db", tt.second, "the second")
			if tt.ok != (err == nil) {
				t.Fatalf("error is %v", err)
			}
			if err == nil {
				again()
			} else if !errors.Is(err, errdefs.ErrInUse) || !errors.Is(err, schedule.ErrBusy) || !strings.HasPrefix(err.Error(), `volume "db": busy: the first, since `) {
				t.Errorf("error is %v", err)
			}
			release()
			release() // once more does nothing
			if err := c.Check(t.Context(), "a", "db", Changing); err != nil || len(c.held) != 0 {
				t.Errorf("after the end: %v, %v", err, c.held)
			}
		})
	}
}
