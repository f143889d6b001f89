package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// networkPlan says how much of the network suite is measured.
type networkPlan struct {
	rounds, seconds, pings int

	tries     int // of what is slow, such as noticing a loss
	addresses int
	peers     int
	names     int
	questions time.Duration
}

var (
	wholeNetwork = networkPlan{
		rounds: 9, seconds: 1, pings: 500,
		tries: 5, addresses: 1000, peers: 50, names: 100, questions: 3 * time.Second,
	}
	quickNetwork = networkPlan{
		rounds: 1, seconds: 1, pings: 100,
		tries: 1, addresses: 100, peers: 5, names: 5, questions: 300 * time.Millisecond,
	}
)

// networkSuite measures the network across hosts, with namespaces for hosts.
type networkSuite struct {
	networkPlan
	stage
	dir       string
	remora    string
	wireguard string
	prefix    string // of the names of namespaces
	results   *NetworkResults
}

// networkTools are the programs that it needs, and where Debian has them.
var networkTools = map[string]string{
	"ip": "iproute2", "bridge": "iproute2", "sysctl": "procps", "nsenter": "util-linux", "ethtool": "ethtool", "iperf3": "iperf3", "ping": "iputils-ping",
	"wg": "wireguard-tools", "nft": "nftables",
}

// measureNetwork runs the plan, or one part of it, and keeps the other parts of old.
func measureNetwork(p networkPlan, only, daemon, scratch string, old *NetworkResults) (r *NetworkResults, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the network suite makes namespaces, and needs root")
	}
	if err := have(networkTools); err != nil {
		return nil, err
	}
	dir, done, err := newScratch(scratch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	s := &networkSuite{networkPlan: p, dir: dir, remora: daemon, results: new(NetworkResults), prefix: fmt.Sprintf("rb%d", os.Getpid()), stage: newStage()}
	if only != "" && old != nil {
		*s.results = *old
	}
	bin, err := build(dir, daemon)
	if err != nil {
		return nil, err
	}
	s.remora, s.wireguard = bin.remora, filepath.Join(dir, "wireguard-go")
	if err := command("go", "build", "-C", "..", "-trimpath", "-o", s.wireguard, wireguardModule); err != nil {
		return nil, err
	}
	if s.results.Machine, err = lookAtMachine(dir, filepath.Join(dir, "run")); err != nil {
		return nil, err
	}
	s.results.Tools = map[string]string{
		"iperf3": said("sh", "-c", "iperf3 --version | head -n 1"), "ping": said("ping", "-V"),
		"wireguard-go": said("go", "list", "-C", "..", "-m", "-f", "{{.Version}}", wireguardModule), "Nebula": nebulaVersion,
	}
	return s.results, s.play(only, []part{{"data", s.dataPlane}, {"control", s.controlPlane}, {"answers", s.answers}, {"peers", s.manyPeers}}...)
}

const wireguardModule = "golang.zx2c4.com/wireguard"

// dataPlane measures each way in turn, in rounds whose order turns around.
func (s *networkSuite) dataPlane() error {
	r := s.results
	r.Samples, r.Daemons, r.LeftOut = nil, nil, map[string]string{}
	var all []*way
	for _, x := range ways {
		if err := s.step("set up %s", x.name); err != nil {
			return err
		}
		w, err := x.build(s)
		if out, ok := errors.AsType[leftOut](err); ok {
			s.say("%s is left out: %v", x.name, err)
			r.LeftOut[x.name] = out.Error()
			continue
		}
		if err == nil {
			w.name = x.name
			err = s.ready(w)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		all = append(all, w)
	}
	time.Sleep(5 * time.Second) // they come to rest
	for _, w := range all {
		for _, m := range w.daemons {
			rss, err := m.rss()
			own, oerr := ownOf(m.cmd.Process.Pid)
			if err := errors.Join(err, oerr); err != nil {
				return err
			}
			r.Daemons = append(r.Daemons, NetworkMemory{w.name, rss, own})
		}
	}
	for round := range s.rounds {
		order := slices.Clone(all)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, mode := range []string{wholeMode, cutMode} {
			for _, w := range order {
				if err := s.step("round %d of %d, %s: %s", round+1, s.rounds, mode, w.name); err != nil {
					return err
				}
				if err := s.measureWay(w, mode, round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ready waits until a way leads there, and has somebody listen at its end.
func (s *networkSuite) ready(w *way) error {
	if err := until(20*time.Second, 100*time.Millisecond, func() error { _, err := w.from.run("ping", "-c", "1", "-W", "1", w.address); return err }); err != nil {
		return err
	}
	if _, err := w.to.start("iperf3", "-s"); err != nil {
		return err
	}
	return until(5*time.Second, 50*time.Millisecond, func() error { _, err := w.iperf("-n", "1K"); return err })
}

// measureWay runs all loads on one way. Whether super-packets cross the wire says nothing of small ones.
func (s *networkSuite) measureWay(w *way, mode string, round int) error {
	for _, h := range w.hosts {
		if err := h.offloads(mode == wholeMode); err != nil {
			return err
		}
	}
	idle, own := w.memory()
	loads := []func() (NetworkSample, error){
		func() (NetworkSample, error) { return w.measureTCP(s.seconds) },
	}
	if mode == wholeMode {
		loads = append([]func() (NetworkSample, error){
			func() (NetworkSample, error) { return w.measurePing(s.pings) },
			func() (NetworkSample, error) { return w.measureUDP(s.seconds) },
		}, loads...)
	}
	for _, load := range loads {
		x, err := load()
		if err != nil {
			return err
		}
		if x.Load == tcpLoad {
			x.Idle, x.IdleOwn = idle, own
		}
		x.Way, x.Mode, x.Round = w.name, mode, round
		s.results.Samples = append(s.results.Samples, x)
	}
	return nil
}
