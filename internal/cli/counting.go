package cli

import (
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/logging"
)

// tellEvery is how often a long command says how far it has come, and how long it may take
// without saying anything.
const tellEvery = 2 * time.Second

// counting tells how far something has come of which nobody knows how long it is: on a
// terminal on one line that changes, elsewhere on a line each time.
type counting struct {
	a           *app
	what        string
	start, told time.Time
	terminal    bool
}

func (a *app) counting(what string) *counting {
	now := time.Now()
	return &counting{a: a, what: what, start: now, told: now, terminal: logging.IsTerminal(a.Stderr)}
}

func (c *counting) tell(p control.Progress) {
	now := time.Now()
	if now.Sub(c.told) < tellEvery {
		return
	}
	c.told = now
	end := "\n"
	if c.terminal {
		end = "\r"
	}
	c.a.sayf("%s: %d %s, %.0f/s%s", p.Object, p.Done, c.what, float64(p.Done)/now.Sub(c.start).Seconds(), end)
}

// end leaves the line that changes.
func (c *counting) end() {
	if c.terminal && c.told != c.start {
		c.a.sayf("\n")
	}
}
