package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The verbs in the order in which a round runs them. A round's Remove takes what its
// Create made, so the number of volumes stays. One batch measures mount and mountPair:
// the time of a Mount, and that of a Mount with its Unmount.
const (
	create    = "Create"
	get       = "Get"
	list      = "List"
	mount     = "Mount"
	mountPair = "Mount+Unmount"
	remove    = "Remove"
	// listAnew is the List before those of a batch: the round's Create came since the
	// last one, so that nothing which was kept is right any more.
	listAnew = "List, after a change"
)

// Sample is one batch: what one peer did of one verb in one round.
type Sample struct {
	Peer    string  `json:"peer"`
	Verb    string  `json:"verb"`
	Volumes int     `json:"volumes"`
	Clients int     `json:"clients"`
	Round   int     `json:"round"`
	Ops     int     `json:"ops"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	// CPU of the server for all Ops, by a clock of 10 ms.
	CPU float64 `json:"cpu_us"`
}

// Memory is what a peer's process holds, in bytes.
type Memory struct {
	Peer    string `json:"peer"`
	Volumes int    `json:"volumes"`
	// Idle is some seconds after the start, Loaded after all batches.
	Idle   int64 `json:"idle_bytes"`
	Loaded int64 `json:"loaded_bytes,omitempty"`
}

// Start is how long a peer took from its start to the first answer.
type Start struct {
	Peer    string  `json:"peer"`
	Volumes int     `json:"volumes"`
	Seconds float64 `json:"seconds"`
}

// plan says how much is measured.
type plan struct {
	volumes []int
	clients []int
	rounds  int
	batch   time.Duration
	starts  int
	settle  time.Duration
	runs    int // of docker run, pairs
}

// suite measures.
type suite struct {
	plan
	bin     binaries
	scratch string
	say     func(format string, args ...any)
	results *Results
	batches int // so far; makes the names of new volumes unique
}

// scale measures everything that depends on the number of volumes.
func (s *suite) scale(n int) (err error) {
	names := []string{remora, helpers, floor}
	if n == 10_000 || len(s.volumes) == 1 {
		names = append(names, synced)
	}
	var peers []*peer
	defer func() {
		for _, p := range peers {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, name := range names {
		p := newPeer(s.bin, name, filepath.Join(s.scratch, fmt.Sprintf("%s-%d", name, n)), n)
		s.say("%d volumes: make those of %s", n, name)
		if err := p.seed(n); err != nil {
			return err
		}
		if _, err := p.start(""); err != nil {
			return err
		}
		peers = append(peers, p)
		if name == remora {
			if err := p.fill(n); err != nil {
				return err
			}
		}
	}
	if err := s.restart(peers, n); err != nil {
		return err
	}
	for _, clients := range s.clients {
		crews := map[*peer]crew{}
		for _, p := range peers {
			if crews[p], err = hire(p.socket, clients); err != nil {
				return err
			}
			defer crews[p].close()
		}
		for round := range s.rounds + 1 { // one more, to warm up
			s.say("%d volumes, %d clients, round %d of %d", n, clients, round, s.rounds)
			kept := len(s.results.Samples)
			if err := s.round(peers, crews, n, clients, round); err != nil {
				return err
			}
			if round == 0 {
				s.results.Samples = s.results.Samples[:kept]
			}
		}
	}
	for _, p := range peers {
		m := s.results.memory(p.name, n)
		if m.Loaded, err = p.rss(); err != nil {
			return err
		}
	}
	return nil
}

// restart starts each peer anew, some times and in turn, and lets it come to rest.
func (s *suite) restart(peers []*peer, n int) error {
	for range s.starts {
		for _, p := range peers {
			if p.name == floor || p.name == synced {
				continue // the one has nothing to read, the other is a peer that is here
			}
			if err := p.stop(); err != nil {
				return err
			}
			took, err := p.start(nameOf(n - 1))
			if err != nil {
				return err
			}
			s.results.Starts = append(s.results.Starts, Start{p.name, n, took.Seconds()})
		}
	}
	return s.rest(peers, n)
}

// rest waits, and notes what the peers hold when nobody asks them anything.
func (s *suite) rest(peers []*peer, n int) error {
	time.Sleep(s.settle)
	for _, p := range peers {
		rss, err := p.rss()
		if err != nil {
			return err
		}
		s.results.Memory = append(s.results.Memory, Memory{Peer: p.name, Volumes: n, Idle: rss})
	}
	return nil
}

// empty measures the memory of peers without a volume.
func (s *suite) empty() (err error) {
	var peers []*peer
	defer func() {
		for _, p := range peers {
			err = errors.Join(err, p.stop())
		}
	}()
	for _, name := range []string{remora, helpers, floor} {
		p := newPeer(s.bin, name, filepath.Join(s.scratch, name+"-0"), 0)
		if err := os.MkdirAll(p.dir, 0o755); err != nil {
			return err
		}
		if _, err := p.start(""); err != nil {
			return err
		}
		peers = append(peers, p)
	}
	return s.rest(peers, 0)
}

// round runs each verb on each peer, the peers of one verb right after one another and
// each round in another order.
func (s *suite) round(peers []*peer, crews map[*peer]crew, n, clients, round int) error {
	order := slices.Clone(peers)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	made := map[*peer][][]string{}
	for _, verb := range []string{create, get, list, mount, remove} {
		// Get and Mount are short and their times depend on which processor wakes which:
		// they get more and shorter turns.
		turns := 1
		if verb == get || verb == mount {
			turns = 4
		}
		for turn := range turns {
			for _, p := range order {
				if p.name == synced && verb != create && verb != remove {
					continue
				}
				if verb == create {
					made[p] = make([][]string, clients)
				}
				if err := s.batch(p, crews[p], verb, n, round*turns+turn, made[p]); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
			}
		}
	}
	return nil
}

// batch runs one verb on one peer.
func (s *suite) batch(p *peer, cs crew, verb string, n, round int, made [][]string) error {
	l := limit{time: s.plan.batch, least: max(4/len(cs), 1), most: 1 << 30}
	// Each client has volumes of its own: what is measured is the plugin, and not how
	// long callers wait for one another's volume.
	pick := func(w int) string {
		slots := max(n/len(cs), 1)
		return nameOf((mathrand.IntN(slots)*len(cs) + w) % n)
	}
	halves := make([][]time.Duration, len(cs)) // Mount alone
	op := map[string]func(w, i int, c *client) error{
		create: func(w, i int, c *client) error {
			name := fmt.Sprintf("batch_%03d-%02d-%07d", s.batches, w, i)
			made[w] = append(made[w], name)
			return c.volume("Create", name, "", "{")
		},
		get: func(w, _ int, c *client) error {
			name := pick(w)
			return c.volume("Get", name, "", name)
		},
		list: func(_, _ int, c *client) error {
			answer, err := c.call("VolumeDriver.List", []byte("{}"))
			if err == nil && len(answer) < n*len(nameOf(0)) {
				err = fmt.Errorf("list: %d bytes cannot hold %d volumes", len(answer), n)
			}
			return err
		},
		mount: func(w, _ int, c *client) error {
			name, id := pick(w), newID()
			begin := time.Now()
			if err := c.volume("Mount", name, id, name); err != nil {
				return err
			}
			halves[w] = append(halves[w], time.Since(begin))
			return c.volume("Unmount", name, id, "{")
		},
		remove: func(w, i int, c *client) error {
			if i == len(made[w]) {
				return io.EOF
			}
			return c.volume("Remove", made[w][i], "", "{")
		},
	}[verb]
	s.batches++
	switch verb {
	case list:
		begin := time.Now()
		if err := op(0, 0, cs[0]); err != nil {
			return err
		}
		if d := time.Since(begin); len(cs) == 1 {
			s.results.add(Sample{Peer: p.name, Verb: listAnew, Volumes: n, Clients: 1, Round: round, Ops: 1, Seconds: d.Seconds()}, []time.Duration{d})
		}
	case get, mount:
		l.time /= 2
	case remove:
		l.least = l.most // until there is none left
	}
	if verb == create || verb == remove {
		// A flush takes with it what others have written and not flushed. Nobody is to
		// pay for the peer before.
		if err := s.flush(); err != nil {
			return err
		}
	}
	before, err := p.cpu()
	if err != nil {
		return err
	}
	took, whole, err := cs.run(l, op)
	if err != nil {
		return err
	}
	after, err := p.cpu()
	if err != nil {
		return err
	}
	sample := Sample{
		Peer: p.name, Verb: verb, Volumes: n, Clients: len(cs), Round: round,
		Ops: len(took), Seconds: whole.Seconds(), CPU: float64((after - before).Microseconds()),
	}
	if verb == mount {
		half := sample
		half.CPU = 0 // not known by itself
		s.results.add(half, slices.Concat(halves...))
		sample.Verb = mountPair
	}
	s.results.add(sample, took)
	return nil
}

// flush brings what has been written to the file system to the disk (syncfs(2)).
func (s *suite) flush() error {
	dir, err := os.Open(s.scratch)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
}

// newID makes a mount ID as an engine does.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
