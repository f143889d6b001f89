package block_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/block"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestClientKeepsToTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := block.NewClient(t.Name(), 10)
		if block.NewClient(t.Name(), 20) != c {
			t.Error("two clients of one account")
		}
		began := time.Now()
		var all sync.WaitGroup
		for range 150 {
			all.Go(func() {
				if err := c.Do(t.Context(), "op", func(context.Context) error { return nil }); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		// 50 at once, and 10 a second after that.
		if took := time.Since(began); took < 9*time.Second || took > 12*time.Second {
			t.Errorf("150 requests took %s", took)
		}
	})
}

func TestClientBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := block.NewClient(t.Name(), 1000)
		n := 0
		began := time.Now()
		err := c.Do(t.Context(), "op", func(context.Context) error {
			if n++; n < 4 {
				return block.Throttled(errors.New("slow down"), 20*time.Second)
			}
			return nil
		})
		if took := time.Since(began); err != nil || took < 60*time.Second || took > 62*time.Second {
			t.Errorf("%d requests took %s, %v", n, took, err)
		}
		// One that is throttled holds up all others of the account.
		go func() {
			_ = c.Do(t.Context(), "op", func(context.Context) error { n++; return block.Throttled(errors.New("slow"), 10*time.Second) })
		}()
		synctest.Wait()
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := c.Do(ctx, "other", func(context.Context) error { return nil }); err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("beside one that is throttled: %v after %s", err, time.Since(began))
		}
		got := fmt.Sprint(c.Counts())
		if !strings.Contains(got, "throttled 4}") || !strings.Contains(got, "ok 1}") {
			t.Errorf("counts are %s", got)
		}
		if err := block.Throttled(errors.New("x"), 0); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Error("a throttled request is not ErrUnavailable")
		}
		_ = block.NewClient(t.Name(), 1)
	})
}

// TestClosedAccount: a cloud that wants no requests is asked none, for an hour at the most, and the
// error says so.
func TestClosedAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := block.NewClient(t.Name(), 10)
		n := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := c.Do(ctx, "op", func(context.Context) error { n++; return block.Throttled(errors.New("slow"), 365*24*time.Hour) })
		if !errors.Is(err, errdefs.ErrUnavailable) || n != 1 || !strings.Contains(err.Error(), "the cloud wants none for another 59m0s") {
			t.Errorf("%d requests, %v", n, err)
		}
		began := time.Now()
		if err := c.Do(t.Context(), "op", func(context.Context) error { return nil }); err != nil || time.Since(began) > time.Hour {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// TestTransport: the requests of an SDK are counted and held up like others.
func TestTransport(t *testing.T) {
	status, header := http.StatusOK, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set("Retry-After", header)
		}
		w.WriteHeader(status)
	}))
	defer srv.Close()
	c := block.NewClient(t.Name(), 1000)
	hc := http.Client{Transport: c.Transport(http.DefaultTransport, func(r *http.Request) string { return r.Method + " " + r.URL.Path }, nil)}
	get := func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/disks", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	for _, s := range []int{http.StatusOK, http.StatusNotFound, http.StatusServiceUnavailable} {
		status = s
		if err := get(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	status, header = http.StatusTooManyRequests, "1"
	if err := get(); err != nil {
		t.Fatal(err)
	}
	status, header = http.StatusOK, ""
	if err := get(); err != nil || time.Since(began) < time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	got := fmt.Sprint(c.Counts())
	want := fmt.Sprintf("[{%[1]s GET /disks 404 1} {%[1]s GET /disks 503 1} {%[1]s GET /disks ok 2} {%[1]s GET /disks throttled 1}]", t.Name())
	if got != want {
		t.Errorf("counts are %s", got)
	}
}
