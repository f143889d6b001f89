package address

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// BenchmarkLook is how long a host needs to know who owns what after a record has come, with 1,000 hosts and
// ten networks, in each of which 256 hosts own a block.
func BenchmarkLook(b *testing.B) {
	m := newMemory(hostNumber(0))
	put := func(writer int, kind, name string, body any) {
		other := newMemory(hostNumber(writer))
		if err := other.Put(kind, name, body); err != nil {
			b.Fatal(err)
		}
		m.merge(other, everyRecord)
	}
	for i := range 1000 {
		put(i, record.KindMember, "", record.Member{Nickname: fmt.Sprint("host", i), Started: time.Now()})
	}
	for n := range 10 {
		id := fmt.Sprintf("%016x", n)
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), 0, 0}), 16)
		put(0, record.KindNetwork, id, record.Network{ID: id, Subnets: []netip.Prefix{subnet}})
		for i := range 256 {
			g := record.Grant{Space: id, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), byte(i), 0}), 24), Serial: 1, To: hostNumber(i)}
			put(0, record.KindGrant, grantName(g), g)
		}
	}
	var before decoded
	for b.Loop() {
		v := look(m, before)
		before = v.bodies
		for space := range v.spaces {
			if len(v.owners(space)) != 256 {
				b.Fatal("not all are owned")
			}
		}
	}
}

// BenchmarkSync is what the disk needs for what an allocation writes.
func BenchmarkSync(b *testing.B) {
	f, err := os.CreateTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, ahead)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	line := make([]byte, 80)
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if _, err := f.WriteAt(line, int64(i*len(line)%(ahead-len(line)))); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
