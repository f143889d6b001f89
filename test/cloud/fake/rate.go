package fake

import "time"

// Window counts calls in a fixed stretch of time. It is not safe for several goroutines.
type Window struct {
	Limit int
	Per   time.Duration

	began time.Time
	used  int
}

// Take counts a call and reports whether it was within the limit. A limit of 0 is none.
func (w *Window) Take(now time.Time) bool {
	if now.Sub(w.began) >= w.Per {
		w.began, w.used = now, 0
	}
	if w.Limit > 0 && w.used >= w.Limit {
		return false
	}
	w.used++
	return true
}

// Left is how many calls the window still allows, and End when it starts anew.
func (w *Window) Left() int { return max(w.Limit-w.used, 0) }

// End is when the window starts anew.
func (w *Window) End() time.Time { return w.began.Add(w.Per) }
