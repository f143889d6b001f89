package cluster

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-plugins/remora/internal/cluster/record"
)

// TestManyHosts: 50 hosts on a net that loses messages, with cuts. Both sides go on, and agree after the heal.
func TestManyHosts(t *testing.T) {
	count := 50
	if testing.Short() {
		count = 12
	}
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		n.loss = 0.02
		hosts := n.cluster(t, count)
		soon(t, "all know each other", 20*time.Second, func() bool { return know(hosts) && agree(hosts) })

		var took []time.Duration
		for i := range 30 {
			put(t, hosts[i%len(hosts)], fmt.Sprint("name", i))
			took = append(took, soon(t, "a name on all", 10*time.Second, func() bool { return agree(hosts) }))
			time.Sleep(time.Duration(rand.N(100)) * time.Millisecond)
		}
		slices.Sort(took)
		t.Logf("a name is on all after %v, at most %v", took[len(took)/2], took[len(took)-1])
		if p50 := took[len(took)/2]; p50 > 150*time.Millisecond {
			t.Errorf("a name is on all after %v", p50)
		}

		side := map[*memhost]int{}
		for round := range 3 {
			for _, h := range hosts {
				side[h] = rand.N(2)
			}
			n.split(func(h *memhost) int { return side[h] })
			var sides [2][]*memhost
			for _, h := range hosts {
				sides[side[h]] = append(sides[side[h]], h)
			}
			for i, h := range hosts {
				put(t, h, fmt.Sprintf("round%d host%d", round, i))
				if err := h.c.Store().Delete(record.KindName, fmt.Sprintf("round%d host%d", round-1, i)); err != nil {
					t.Fatal(err)
				}
			}
			took := soon(t, "each side agrees", 10*time.Second, func() bool { return agree(sides[0]) && agree(sides[1]) })
			took += soon(t, "each side knows itself", 10*time.Second, func() bool { time.Sleep(100 * time.Millisecond); return know(sides[0]) && know(sides[1]) })
			t.Logf("round %d: %d and %d hosts agree after %v", round, len(sides[0]), len(sides[1]), took)
			time.Sleep(time.Duration(rand.N(60)) * time.Second)
			n.split(nil)
			took = soon(t, "all agree", 10*time.Second, func() bool { return agree(hosts) })
			t.Logf("round %d: all agree %v after the heal", round, took)
			took = soon(t, "all know each other", 10*time.Second, func() bool { return know(hosts) })
			t.Logf("round %d: all know each other %v later", round, took)
			if names := len(hosts[0].c.Store().Records(record.KindName)); names != 30+count {
				t.Errorf("%d names", names)
			}
		}
		n.end(hosts)
	})
}

// TestQuietLinks: in a cluster in which not each keeps a link to each, joining and messages have links that come and go. What
// hosts say of their links stays the same meanwhile: each time they say it, it goes to all.
func TestQuietLinks(t *testing.T) {
	if testing.Short() {
		t.Skip("short: some hundred hosts take half a minute")
	}
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		hosts := n.cluster(t, allPairs+36)
		soon(t, "all know each other", 20*time.Second, func() bool { return know(hosts) && agree(hosts) })
		time.Sleep(2*linksEvery + settle)
		said := func() map[record.Host]uint64 {
			all := map[record.Host]uint64{}
			for _, r := range hosts[0].c.Store().Records(record.KindLinks) {
				all[r.Writer] = r.Counter
			}
			return all
		}
		before := said()
		if len(before) != len(hosts) {
			t.Errorf("%d of %d hosts say what links they have", len(before), len(hosts))
		}
		time.Sleep(40 * time.Second)
		again := 0
		for h, counter := range said() {
			if counter != before[h] {
				again++
			}
		}
		t.Logf("%d of %d said their links again within 40 s", again, len(hosts))
		if again > len(hosts)/20 {
			t.Errorf("%d of %d said their links again within 40 s", again, len(hosts))
		}
		n.end(hosts)
	})
}

// membersEnv has TestMembers run with so many members; 1000 take minutes, and some GB of memory.
const membersEnv = "REMORA_SIM_MEMBERS"

func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func memory() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// spreads gives names, each on one of the hosts, and returns how long each takes to be on all, the fastest first.
func spreads(t *testing.T, hosts []*memhost, names int) []time.Duration {
	t.Helper()
	var all []time.Duration
	for i := range names {
		h, name := hosts[rand.N(len(hosts))], fmt.Sprintf("new%d", i)
		put(t, h, name)
		key := record.Key{Writer: h.c.Self(), Kind: record.KindName, Name: name}
		all = append(all, soon(t, name+" on all", 20*time.Second, func() bool {
			for _, o := range hosts {
				if _, ok := o.c.Store().Get(key); !ok {
					return false
				}
			}
			return true
		}))
		time.Sleep(100 * time.Millisecond)
	}
	slices.Sort(all)
	return all
}

// TestMembers says what a member costs in a cluster of many.
func TestMembers(t *testing.T) {
	count := 50
	if testing.Short() {
		count = 15
	}
	if n, err := strconv.Atoi(os.Getenv(membersEnv)); err == nil {
		count = n
	}
	dirs := make([]string, count)
	for i := range dirs {
		dirs[i] = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		n := newMemnet()
		n.loss = 0.001
		empty := memory()
		started, used := time.Now(), cpu()
		var hosts []*memhost
		for i, dir := range dirs {
			h := n.add(t, dir, fmt.Sprint("h", i), nil)
			hosts = append(hosts, h)
			if i == 0 {
				if err := h.c.Found(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := h.c.Connect([]string{hosts[rand.N(i)].address}, false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
		for know := 0; know < count; {
			time.Sleep(500 * time.Millisecond)
			if know = count; time.Since(started) > 10*time.Minute {
				t.Fatalf("only %d members are known", know)
			}
			for _, h := range hosts {
				if s := h.c.Store(); s == nil || s.Status().Writers < count {
					know = 0
					break
				}
			}
		}
		tell := func(key string, value any) { t.Attr(key, fmt.Sprint(value)) } // for the bench
		joined := time.Since(started) - time.Duration(count)*20*time.Millisecond
		t.Logf("%d members, 50 a second: all known to all %v after the last joined; %v of a core, %d KB sent each",
			count, joined, (cpu()-used)/time.Duration(count), int(n.bytes.Load())/count>>10)
		tell("joined_ms", joined.Milliseconds())
		time.Sleep(time.Minute)

		used, bytes, packets, errands, began := cpu(), n.bytes.Load(), n.packets.Load(), n.errands.Load(), time.Now()
		time.Sleep(time.Minute)
		seconds := time.Since(began).Seconds()
		each := func(v int64) float64 { return float64(v) / seconds / float64(count) }
		share := 100 * each(int64(cpu()-used)) / 1e9
		kb := (memory() - empty) / count >> 10
		links := 0
		for _, h := range hosts {
			links += len(h.Peers())
		}
		t.Logf("idle, each: %.3f %% of a core, %d KB of memory, %.0f B/s, %.1f messages/s, %.2f links made a second, %d links",
			share, kb, each(n.bytes.Load()-bytes), each(n.packets.Load()-packets), each(n.errands.Load()-errands), links/count)
		tell("core_percent", share)
		tell("memory_kb", kb)
		tell("bytes_per_second", each(n.bytes.Load()-bytes))
		if share > 5 || kb > 100<<10 {
			t.Errorf("a member takes %.1f %% of a core and %d KB", share, kb)
		}

		late := n.add(t, t.TempDir(), "late", nil)
		if err := late.c.Connect([]string{hosts[count/2].address}, false); err != nil {
			t.Fatal(err)
		}
		took := soon(t, "a late one knows all", 10*time.Second, func() bool {
			return late.c.Store() != nil && late.reaches() > count*99/100
		})
		t.Logf("one more joined, and reaches 99 of 100: %v", took)
		tell("late_ms", took.Milliseconds())
		hosts = append(hosts, late)
		put(t, late, "a name")
		took = soon(t, "a name on all", 10*time.Second, func() bool { return agree(hosts) })
		t.Logf("all agree %v after it made a name", took)
		spread := spreads(t, hosts, max(300, 20_000/count))
		t.Logf("a new name is on all hosts after p50 %v, p99 %v", spread[len(spread)/2], spread[len(spread)*99/100])
		tell("name_p50_ms", spread[len(spread)/2].Milliseconds())
		tell("name_p99_ms", spread[len(spread)*99/100].Milliseconds())
		// What is pushed and lost comes with one of memberlist's next rounds.
		if limit := 500 * time.Millisecond; count <= allPairs && spread[len(spread)*99/100] > limit {
			t.Errorf("more than %v", limit)
		}

		lost := hosts[count/3]
		n.split(func(h *memhost) int {
			if h == lost {
				return 1
			}
			return 0
		})
		began = time.Now()
		var first, last time.Duration
		for last == 0 && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond)
			noticed := 0
			for _, h := range hosts {
				if h != lost && !h.c.Reachable(lost.c.Self()) {
					noticed++
				}
			}
			if noticed > 0 && first == 0 {
				first = time.Since(began)
			}
			if noticed == count {
				last = time.Since(began)
			}
		}
		t.Logf("one was silently lost: the first noticed after %v, all after %v", first, last)
		tell("noticed_ms", last.Milliseconds())
		if last == 0 || last > 12*time.Second {
			t.Errorf("all noticed after %v", last)
		}
		n.end(hosts)
	})
}
