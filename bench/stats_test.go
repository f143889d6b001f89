package main

import (
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// upTo returns the whole numbers from 1 to n.
func upTo(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i + 1)
	}
	return v
}

func TestQuantileIsAValueThatWasMeasured(t *testing.T) {
	for _, tt := range []struct {
		n       int
		q, want float64
	}{
		{1, 0.5, 1}, {1, 0.99, 1}, {2, 0.5, 1}, {3, 0.5, 2}, {100, 0.5, 50}, {100, 0.99, 99}, {101, 0.99, 100}, {1000, 0.99, 990}, {10, 0, 1}, {10, 1, 10},
	} {
		if got := quantile(upTo(tt.n), tt.q); got != tt.want {
			t.Errorf("quantile %g of 1…%d is %g, want %g", tt.q, tt.n, got, tt.want)
		}
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("quantile of nothing is %g", got)
	}
}

func TestMedian(t *testing.T) {
	values := []float64{9, 1, 5, 3}
	if got := median(values); got != 4 {
		t.Errorf("median is %g, want 4", got)
	}
	if values[0] != 9 {
		t.Error("median sorted the values of its caller")
	}
	if got := median(upTo(7)); got != 4 {
		t.Errorf("median of 1…7 is %g, want 4", got)
	}
}

// The ranks are those of the tables for the sign test, two-sided, 95 %.
func TestIntervalCoversTheMedian(t *testing.T) {
	for _, tt := range []struct {
		n         int
		low, high float64
	}{
		{1, 1, 1}, {5, 1, 5}, {6, 1, 6}, {8, 1, 8}, {9, 2, 8}, {12, 3, 10}, {15, 4, 12}, {20, 6, 15}, {25, 8, 18}, {30, 10, 21},
	} {
		if low, high := interval(upTo(tt.n)); low != tt.low || high != tt.high {
			t.Errorf("interval of 1…%d is %g to %g, want %g to %g", tt.n, low, high, tt.low, tt.high)
		}
	}
}

func TestCompareIsPairedByRound(t *testing.T) {
	r := new(Results)
	k := key{get, 100, 1}
	// Both are slower from round to round, as on a machine that gets busier, and one is
	// twice the other at all times.
	for round := 1; round <= 5; round++ {
		for peer, factor := range map[string]float64{remora: 2, floor: 1} {
			s := Sample{Peer: peer, Verb: get, Volumes: 100, Clients: 1, Round: round, P50: factor * 10 * float64(round)}
			r.Samples = append(r.Samples, s)
		}
	}
	if got := r.compare(remora, floor, k, p50); got != (ratio{2, 2, 2}) {
		t.Errorf("ratio is %v, want 2 with no doubt", got)
	}
}

func TestFillKeepsWhatIsWrittenByHand(t *testing.T) {
	const page = "# Speed\n\nBy hand.\n\n<!-- bench: a -->\nold\n<!-- bench: end a -->\n\nAlso by hand.\n"
	got, err := fill(page, "a", "new\n\n")
	if want := strings.Replace(page, "old", "new", 1); err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := fill(page, "b", "new"); err == nil {
		t.Error("marks that are missing were not missed")
	}
}

func TestFormats(t *testing.T) {
	for got, want := range map[string]string{
		span(4.25): "4.2 µs", span(43): "43 µs", span(999.6): "1.00 ms", span(12_340): "12.3 ms", span(1.5e6): "1.50 s", span(math.NaN()): "–",
		count(7): "7.0", count(123.4): "123", count(12_345): "12,300", commas(1_234_567): "1,234,567", mib(0): "–", mib(3 << 19): "1.5 MiB",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The load stands and falls with clients that notice a wrong answer, and stop in time.
func TestCrew(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/VolumeDriver.Mount" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.Copy(w, r.Body)
	})}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	cs, err := hire(socket, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer cs.close()
	took, whole, err := cs.run(limit{least: 5, most: 5}, func(_, _ int, c *client) error { return c.volume("Get", "data", "", `"data"`) })
	if err != nil || len(took) != 15 || whole <= 0 {
		t.Errorf("%d calls in %v, %v; want 15", len(took), whole, err)
	}
	took, _, err = cs.run(limit{time: time.Hour, most: 100}, func(_, i int, _ *client) error {
		if i == 2 {
			return io.EOF
		}
		return nil
	})
	if err != nil || len(took) != 6 {
		t.Errorf("%d calls until the end, %v; want 6", len(took), err)
	}
	if err := cs[0].volume("Get", "data", "", "other"); err == nil {
		t.Error("a wrong answer passed")
	}
	if err := cs[1].volume("Mount", "data", "", ""); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("an error passed: %v", err)
	}
	_, _, err = cs.run(limit{least: 1, most: 1}, func(w, _ int, _ *client) error {
		if w == 1 {
			return os.ErrInvalid
		}
		return nil
	})
	if !errors.Is(err, os.ErrInvalid) {
		t.Errorf("the error of one client got lost: %v", err)
	}
}
