package managed_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/managed"
)

func TestEvents(t *testing.T) {
	var e managed.Events
	before := time.Now()
	e.Add("plugin", "create", "1", map[string]string{"name": "p"})
	past, next, stop := e.Subscribe(before)
	defer stop()
	if len(past) != 1 || past[0].Actor.Attributes["name"] != "p" || past[0].Scope != "local" {
		t.Errorf("past: %+v", past)
	}
	if none, _, stop := e.Subscribe(time.Time{}); len(none) > 0 {
		t.Errorf("past without being asked: %+v", none)
	} else {
		defer stop()
	}
	e.Add("plugin", "remove", "1", nil)
	if ev := <-next; ev.Action != "remove" || ev.Actor.Attributes == nil {
		t.Errorf("next: %+v", ev)
	}
	for i := range 3000 { // more than may wait, and nobody reads
		e.Add("volume", "create", strconv.Itoa(i), nil)
	}
	n := 0
	for range next {
		n++
	}
	if n == 0 || n >= 3000 {
		t.Errorf("a slow reader got %d events and then none, want some and not all", n)
	}
	all, _, stop := e.Subscribe(before)
	defer stop()
	if len(all) != 256 || all[255].Actor.ID != "2999" {
		t.Errorf("%d are kept", len(all))
	}
}
