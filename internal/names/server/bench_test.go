package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/remora-plugins/remora/internal/names/server"
)

// serveHere tells this program, when a benchmark starts it again, to be a server of 10,000 names.
const serveHere = "REMORA_TEST_NAMES_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(serveHere) == "" {
		os.Exit(m.Run())
	}
	z := zones(func(f *facts) {
		for i := range 10_000 {
			f.add(fmt.Sprint("name", i), fmt.Sprintf("10.32.%d.%d", i>>8, i&255))
		}
	})
	s := server.New(context.Background(), server.Config{Zone: z.Zone, Forward: deaf{}, Log: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		at := netip.MustParseAddrPort(l.Addr().String())
		_ = l.Close()
		err = s.Listen(at)
		fmt.Println(at)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until whoever started it ends
}

// apart starts the server in a process of its own, whose time on the processor is known.
func apart(b *testing.B) (at string, cpu func() time.Duration) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveHere+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line), func() time.Duration {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 in every Linux ABI
	}
}

func questions(b *testing.B) (packets [][]byte) {
	for i := range 10_000 {
		packet, err := new(dns.Msg).SetQuestion(fmt.Sprintf("name%d.remora.local.", i), dns.TypeA).Pack()
		if err != nil {
			b.Fatal(err)
		}
		packets = append(packets, packet)
	}
	return packets
}

// BenchmarkThroughput counts the answers for each second that the server is on a processor, while clients keep 16
// questions each on their way.
func BenchmarkThroughput(b *testing.B) {
	at, cpu := apart(b)
	packets := questions(b)
	var left atomic.Int64
	left.Store(int64(b.N))
	var lost atomic.Int64
	before := cpu()
	b.ResetTimer()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			c, err := net.Dial("udp", at)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 1500)
			for i := 0; left.Load() > 0; {
				for range 16 {
					i++
					_, _ = c.Write(packets[i%len(packets)])
				}
				for range 16 {
					_ = c.SetReadDeadline(time.Now().Add(time.Second))
					if _, err := c.Read(buf); err != nil {
						lost.Add(1)
					}
				}
				left.Add(-16)
			}
		})
	}
	all.Wait()
	if used := cpu() - before; used > 0 {
		b.ReportMetric(float64(b.N)/used.Seconds(), "answers/cpu-s")
	}
	if lost.Load() > 0 {
		b.Errorf("%d were not answered", lost.Load())
	}
}

// BenchmarkLatency asks one question after the other.
func BenchmarkLatency(b *testing.B) {
	at, _ := apart(b)
	packets := questions(b)
	c, err := net.Dial("udp", at)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf, i, all := make([]byte, 1500), 0, make([]time.Duration, 0, 1<<16)
	for b.Loop() {
		i++
		begun := time.Now()
		if _, err := c.Write(packets[i%len(packets)]); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(begun))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
}
