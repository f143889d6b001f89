package mesh

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestAgreed: keys count as those of both sides while they may still be used for the first time, and once an answer came with them.
func TestAgreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := record.Host{1}
		time.Sleep(time.Hour)
		ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
		for _, tt := range []struct {
			what              string
			handshake, answer time.Time
			want              bool
		}{
			{"never", time.Time{}, time.Time{}, false},
			{"just now", ago(answerWithin / 2), time.Time{}, true},
			{"without an answer since", ago(2 * answerWithin), ago(3 * answerWithin), false},
			{"with one", ago(3 * answerWithin), ago(2 * answerWithin), true},
			{"with one, too old", ago(freshFor + time.Second), ago(freshFor), false},
		} {
			p := &peers{byHost: map[record.Host]*peer{h: {at: tt.answer}}}
			if got := p.agreed(h, tt.handshake); got != tt.want {
				t.Errorf("a handshake %s: agreed %v", tt.what, got)
			}
		}
		if p := (&peers{}); p.agreed(h, ago(2*answerWithin)) {
			t.Error("a handshake with nobody: agreed")
		}
	})
}
