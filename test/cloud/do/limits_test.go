package do

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/digitalocean/godo"
	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/test/cloud/fake"
)

func TestTokensAndLimits(t *testing.T) {
	w := start(t, Config{Hourly: 300, Burst: 250})
	_, _, err := client(t, w.url, "wrong").Account.Get(t.Context())
	refused(t, "wrong token", err, 401, "Unable to authenticate you")
	reader := client(t, w.url, "reader")
	if _, _, err := reader.Account.Get(t.Context()); err != nil {
		t.Error(err)
	}
	_, _, err = reader.Tags.Create(t.Context(), &godo.TagCreateRequest{Name: "x"})
	refused(t, "token that only reads", err, 403, "not authorized")

	calls := func(n int) (resp *godo.Response, err error) {
		for range n {
			if _, resp, err = w.Regions.List(t.Context(), nil); err != nil {
				break
			}
		}
		return resp, err
	}
	resp, err := calls(250)
	want := godo.Rate{Limit: 300, Remaining: 50, Reset: godo.Timestamp{Time: time.Unix(w.clock.Now().Add(time.Hour).Unix(), 0)}}
	if err != nil || !cmp.Equal(want, resp.Rate) {
		t.Errorf("after 250 calls: %v %s", err, cmp.Diff(want, resp.Rate))
	}
	resp, err = calls(1)
	refused(t, "the 251st", err, 429, "Rate limit")
	if got := resp.Header.Get("Retry-After"); got != "60" {
		t.Errorf("Retry-After %q", got)
	}
	w.clock.Advance(time.Minute)
	if _, err := calls(50); err != nil {
		t.Errorf("a minute later: %v", err)
	}
	resp, err = calls(1)
	refused(t, "the 301st of the hour", err, 429, "Rate limit")
	if got := resp.Header.Get("Retry-After"); got != strconv.Itoa(59*60) {
		t.Errorf("Retry-After %q", got)
	}
	w.clock.Advance(time.Hour)
	if _, err := calls(1); err != nil {
		t.Errorf("an hour later: %v", err)
	}
	if got, want := w.Calls.Counts()["regions.list"], (fake.Count{Calls: 303, Throttled: 2}); got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestAnswerThatIsLost(t *testing.T) {
	w := start(t, Config{})
	w.Calls.Add(fake.Fault{Call: "volumes.create", What: fake.Lose, Times: 1})
	req := &godo.VolumeCreateRequest{Name: "data", Region: "nyc1", SizeGigaBytes: 1}
	if _, _, err := w.Storage.CreateVolume(t.Context(), req); err == nil {
		t.Error("the lost answer came")
	}
	_, _, err := w.Storage.CreateVolume(t.Context(), req)
	refused(t, "create again", err, 409, "failed to create volume")

	w.Calls.Add(fake.Fault{Call: "volumes.list", What: fake.Hang, Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := w.Storage.ListVolumes(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a list that hangs: %v", err)
	}
	if got, _, err := w.Storage.ListVolumes(t.Context(), nil); err != nil || len(got) != 1 {
		t.Errorf("the list after it: %v %v", got, err)
	}
}
