package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPingTimes(t *testing.T) {
	us, err := pingTimes("PING 10.66.2.2 (10.66.2.2) 56(84) bytes of data.\n" +
		"64 bytes from 10.66.2.2: icmp_seq=1 ttl=62 time=0.031 ms\n64 bytes from 10.66.2.2: icmp_seq=2 ttl=62 time=0.012 ms\n" +
		"rtt min/avg/max/mdev = 0.012/0.021/0.031/0.009 ms\n")
	if err != nil || !slices.Equal(us, []float64{12, 31}) {
		t.Errorf("%v, %v", us, err)
	}
	if _, err := pingTimes("64 bytes: time=soon ms\n"); err == nil {
		t.Error("a time that is no number is taken")
	}
}

func TestAnswered(t *testing.T) {
	q := question(7, "nyc.remora.local")
	if want := 12 + len("\x03nyc\x06remora\x05local\x00") + 4; len(q) != want {
		t.Errorf("a question of %d bytes, want %d", len(q), want)
	}
	if answered(q) {
		t.Error("a question is taken for an answer")
	}
	yes := slices.Clone(q)
	yes[2], yes[7] = 0x80, 1
	if !answered(yes) {
		t.Error("an answer is not taken")
	}
	for name, change := range map[string]func([]byte){"no address": func(b []byte) { b[7] = 0 }, "no such name": func(b []byte) { b[3] = 3 }} {
		no := slices.Clone(yes)
		if change(no); answered(no) {
			t.Errorf("%s is taken for an answer", name)
		}
	}
}

func TestNetworkTables(t *testing.T) {
	r := &NetworkResults{}
	for round := range 3 {
		for way, gbit := range map[string]float64{bareWire: 20, l3Routes: 10, oursPlain: 9, swarm: 6, rawTunnel: 3, oursSealed: 3} {
			for _, mode := range []string{wholeMode, cutMode} {
				r.Samples = append(r.Samples, NetworkSample{Way: way, Mode: mode, Load: tcpLoad, Round: round, Value: gbit * 1e9, CPU: 1})
			}
			r.Samples = append(r.Samples, NetworkSample{Way: way, Mode: wholeMode, Load: pingLoad, Round: round, P50: 10, P99: 200 / gbit})
		}
		r.event(lossEvent, 4000+float64(round), 0)
		r.event(addressEvent, 0.5, 9)
	}
	text := r.targets()
	for _, want := range []string{
		"| plain: TCP, at least 0.95× L3 routes | 0.90× (0.90–0.90) | **missed** |", "| plain: TCP, above the Swarm overlay | 1.50× (1.50–1.50) | met |",
		"| encrypted: TCP, at least 0.97× wireguard-go | 1.00× (1.00–1.00) | met |", "is noticed: 6.00 s | 4.00 s, slowest 4.00 s | met |",
		"p99 4.00 ms | p50 500 µs, p99 9.00 ms | **missed** |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	// A time is compared the other way round: 200/9 is worse than 200/10.
	if want := "p99 of ping, the other's to ours | 0.90×"; !strings.Contains(text, want) {
		t.Errorf("%q is missing in\n%s", want, text)
	}
	path := filepath.Join(t.TempDir(), "network.json")
	if err := r.save(path); err != nil {
		t.Fatal(err)
	}
	again, err := load[NetworkResults](path)
	if err != nil || again.targets() != text || again.dataTable() != r.dataTable() {
		t.Errorf("what was saved says something else: %v", err)
	}
}

func TestRenamed(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	for name, text := range map[string]string{"go.mod": "module old.org/x\n", "a.go": "import \"old.org/x/nl\"\n", "a_test.go": "x"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := renamed(from, to, "old.org/x", "new.org/x"); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(to, "go.mod"))
	if err != nil || string(mod) != "module new.org/x\n" {
		t.Errorf("%s, %v", mod, err)
	}
	if _, err := os.Stat(filepath.Join(to, "a_test.go")); err == nil {
		t.Error("tests are copied")
	}
}
