package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// TestWrongPasswordWaits: a host with another password is told so for as long as it is so, and does not try before the other
// side would listen.
func TestWrongPasswordWaits(t *testing.T) {
	one, other := newReal(t, "one", false), newReal(t, "other", false)
	one.password(t, "the one password")
	other.password(t, "and another one")
	if err := one.c.Found(); err != nil {
		t.Fatal(err)
	}
	if err := other.c.Connect([]string{one.address}, false); err != nil {
		t.Fatal(err)
	}
	told := false
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		target := other.c.Targets()[0]
		if target.Err == nil {
			continue
		}
		told = true
		if !errors.Is(target.Err, errdefs.ErrDenied) || !strings.Contains(target.Err.Error(), "do not have the same password") {
			t.Fatalf("attempt %d: %v", target.Tries, target.Err)
		}
	}
	if !told {
		t.Error("nothing is wrong")
	}
	// Of attempts after 0, 1 and 3 seconds each is refused at the most once more.
	if n := other.c.Targets()[0].Tries; n > 7 {
		t.Errorf("%d attempts", n)
	}
}
