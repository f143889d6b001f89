package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/internal/logging"
)

// What takes less than barAfter has no bar; without a terminal there is a line every lineEvery.
const (
	barAfter  = 2 * time.Second
	lineEvery = 10 * time.Second
	barWidth  = 30
)

// bar shows how far something has come: a bar with rate and time left on a terminal, a line
// now and then otherwise.
type bar struct {
	a        *app
	terminal bool
	started  time.Time
	last     time.Time
	drawn    bool
}

func (a *app) bar() *bar {
	now := time.Now()
	return &bar{a: a, terminal: logging.IsTerminal(a.Stderr), started: now, last: now}
}

// show takes a progress in bytes.
func (b *bar) show(p control.Progress) {
	now := time.Now()
	switch {
	case b.terminal && now.Sub(b.started) >= barAfter:
		b.a.sayf("\r\x1b[K%s", progressLine(p, now.Sub(b.started), true))
		b.drawn = true
	case !b.terminal && now.Sub(b.last) >= lineEvery:
		b.a.sayf("%s\n", progressLine(p, now.Sub(b.started), false))
		b.last = now
	}
}

// end wipes the bar.
func (b *bar) end() {
	if b.drawn {
		b.a.sayf("\r\x1b[K")
	}
}

// progressLine says how far p has come in a time.
func progressLine(p control.Progress, took time.Duration, drawn bool) string {
	rate := float64(p.Done) / took.Seconds()
	text := fmt.Sprintf("%s: %s", p.Object, amount(p.Done))
	if p.Total > 0 {
		part := min(1, float64(p.Done)/float64(p.Total))
		if drawn {
			full := int(part * barWidth)
			text = fmt.Sprintf("%s [%s%s]", p.Object, strings.Repeat("#", full), strings.Repeat(".", barWidth-full))
		}
		text += fmt.Sprintf(" %3.0f %% of %s", 100*part, amount(p.Total))
	}
	text += fmt.Sprintf(", %s/s", amount(int64(rate)))
	if left := p.Total - p.Done; left > 0 && rate > 0 {
		text += ", " + time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second).String() + " left"
	}
	return text
}
