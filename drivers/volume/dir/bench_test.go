package dir

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/state"
)

// fill makes n volumes without flushing each.
func fill(b *testing.B, n int) *driver {
	b.Helper()
	d := openPool(b, b.TempDir())
	raw, err := state.Encode(factsVersion, facts{Name: "some-volume", ID: pooldir.NewID(), Created: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		dir := fmt.Sprintf("%s/volume-%06d", d.Path, i)
		if err := os.MkdirAll(dir+"/data", 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(dir+"/volume.json", raw, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return d
}

func BenchmarkVolumes(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			d := fill(b, n)
			for b.Loop() {
				got := 0
				for _, err := range d.Volumes(b.Context()) {
					if err != nil {
						b.Fatal(err)
					}
					got++
				}
				if got != n {
					b.Fatalf("%d volumes, want %d", got, n)
				}
			}
		})
	}
}

func BenchmarkMount(b *testing.B) {
	d := fill(b, 1000)
	for b.Loop() {
		if _, err := d.Mount(b.Context(), "volume-000500", ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	d := fill(b, 10_000)
	for i := 0; b.Loop(); i++ {
		create(b, d, fmt.Sprintf("new-%d", i))
	}
}

func BenchmarkRemove(b *testing.B) {
	d := fill(b, 20_000)
	for i := 0; b.Loop(); i++ {
		if err := d.Remove(b.Context(), fmt.Sprintf("volume-%06d", i)); err != nil {
			b.Fatal(err)
		}
	}
}
