package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MembersResults is what a host costs in clusters of more and more of them. All run in one process, on the real code and in
// virtual time, over links of 5 ms that lose one message in a thousand: TestMembers of internal/cluster.
type MembersResults struct {
	Machine Machine         `json:"machine"`
	Sizes   []MembersSample `json:"sizes"`
}

// MembersSample is one cluster.
type MembersSample struct {
	Members int `json:"members"`
	// Core is what of a processor each takes when nothing happens, in percent; in real time.
	Core float64 `json:"core_percent"`
	// Memory is what each holds, in KiB; Bytes what each sends in a second.
	Memory float64 `json:"memory_kib"`
	Bytes  float64 `json:"bytes_per_second"`
	// Joined is how long after the last of fifty a second had joined each knew all; Late how long one more takes to reach
	// 99 of 100; Noticed how long after a host was lost all others knew. In milliseconds of virtual time, as are the next.
	Joined  float64 `json:"joined_ms"`
	Late    float64 `json:"late_ms"`
	Noticed float64 `json:"noticed_ms"`
	// NameP50 and NameP99 are how long a new name takes to be on all hosts.
	NameP50 float64 `json:"name_p50_ms"`
	NameP99 float64 `json:"name_p99_ms"`
}

// attributes are the fields by what the test calls them.
func (x *MembersSample) attributes() map[string]*float64 {
	return map[string]*float64{
		"core_percent": &x.Core, "memory_kb": &x.Memory, "bytes_per_second": &x.Bytes, "joined_ms": &x.Joined, "late_ms": &x.Late,
		"noticed_ms": &x.Noticed, "name_p50_ms": &x.NameP50, "name_p99_ms": &x.NameP99,
	}
}

var (
	wholeMembers = []int{10, 50, 100, 200, 500, 1000}
	quickMembers = []int{5, 10}
)

// runMembers measures the suite, of which each size is a part, or renders what it measured before.
func runMembers(quick, render bool, only, out, scratch string) error {
	sizes := wholeMembers
	if quick {
		sizes = quickMembers
	}
	return runSuite("members", render, only, out, func(old *MembersResults) (r *MembersResults, err error) {
		r = new(MembersResults)
		if only != "" && old != nil {
			*r = *old
		}
		dir, done, err := newScratch(scratch)
		if err != nil {
			return nil, err
		}
		defer func() {
			if derr := done(); err == nil {
				err = derr
			}
		}()
		if r.Machine, err = lookAtMachine(dir, filepath.Join(dir, "run")); err != nil {
			return nil, err
		}
		test := filepath.Join(dir, "cluster.test")
		if err := command("go", "test", "-C", "..", "-c", "-o", test, "./internal/cluster"); err != nil {
			return nil, err
		}
		var parts []part
		for _, n := range sizes {
			parts = append(parts, part{strconv.Itoa(n), func() error { return r.measure(test, n) }})
		}
		stage := newStage()
		return r, stage.play(only, parts...)
	})
}

// measure runs the test with so many members. What they write goes to memory: the disk of one machine is not that of a
// thousand. A thousand hold some 10 GB while they join, which must not become twice that before it is collected.
func (r *MembersResults) measure(test string, members int) error {
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Hour)
	defer stop()
	cmd := exec.CommandContext(ctx, test, "-test.run", "^TestMembers$", "-test.v", "-test.timeout", "3h")
	cmd.Dir = filepath.Join("..", "internal", "cluster")
	cmd.Env = append(os.Environ(), fmt.Sprint("REMORA_SIM_MEMBERS=", members), "TMPDIR=/dev/shm", "GOGC=30")
	said, err := cmd.CombinedOutput()
	x := MembersSample{Members: members}
	found, err2 := x.read(said)
	if err != nil || err2 != nil || found != len(x.attributes()) {
		return fmt.Errorf("%d members: %d figures, %v, %v: %.2000s", members, found, err, err2, said)
	}
	r.Sizes = slices.DeleteFunc(r.Sizes, func(o MembersSample) bool { return o.Members == members })
	r.Sizes = append(r.Sizes, x)
	slices.SortFunc(r.Sizes, func(a, b MembersSample) int { return a.Members - b.Members })
	fmt.Fprintf(os.Stderr, "%d members: %+v\n", members, x)
	return nil
}

// read takes the figures from what the test says: "=== ATTR  TestMembers name value".
func (x *MembersSample) read(said []byte) (found int, err error) {
	fields := x.attributes()
	lines := bufio.NewScanner(bytes.NewReader(said))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 5 || words[1] != "ATTR" || fields[words[3]] == nil {
			continue
		}
		if *fields[words[3]], err = strconv.ParseFloat(words[4], 64); err != nil {
			return found, err
		}
		found++
	}
	return found, lines.Err()
}

func (r *MembersResults) save(path string) error { return saveLines(r, path) }

func (r *MembersResults) parts() []section {
	var rows [][]string
	for _, x := range r.Sizes {
		ms := func(v float64) string { return span(v * 1e3) }
		rows = append(rows, []string{
			commas(x.Members), fmt.Sprintf("%.3f %%", x.Core), heldMiB(x.Memory), fmt.Sprintf("%s B", commas(int(x.Bytes))), ms(x.Joined), ms(x.Late),
			ms(x.NameP50), ms(x.NameP99), ms(x.Noticed),
		})
	}
	head := []string{"Hosts:", "of a core:", "Memory:", "Sent a second:", "Fifty a second joined, all known after:", "One more reaches 99 %:", "A name on all, p50:", "p99:", "A lost host noticed by all:"}
	return []section{{"members", table(head, rows)}, {"members-targets", r.targets()}}
}

// targets sets what was aimed at against what was measured.
func (r *MembersResults) targets() string {
	var rows [][]string
	goal := func(members int, text, got string, met bool) {
		verdict := "**missed**"
		if met {
			verdict = "met"
		}
		rows = append(rows, []string{fmt.Sprintf("%s hosts: %s", commas(members), text), got, verdict})
	}
	for _, x := range r.Sizes {
		switch x.Members {
		case 50:
			goal(50, "a new name on all in 150 ms p99", span(x.NameP99*1e3), x.NameP99 <= 150)
		case 1000:
			goal(1000, "under 100 MB each", heldMiB(x.Memory), x.Memory < 100e6/1024)
			goal(1000, "under 5 % of a core each", fmt.Sprintf("%.2f %%", x.Core), x.Core < 5)
			goal(1000, "joins under 10 s", span(max(x.Joined, x.Late)*1e3), max(x.Joined, x.Late) < 10e3)
		}
	}
	return table([]string{"Goal", "Measured", ""}, rows)
}

func heldMiB(v float64) string { return mib(int64(v * 1024)) }

// plot shows what grows with the number of hosts.
func (r *MembersResults) plot() string {
	s := newSVG(980, 300, "What a host sends and holds in clusters of ten to a thousand")
	line := func(value func(MembersSample) float64) []series {
		one := series{name: remora}
		for _, x := range r.Sizes {
			one.points = append(one.points, point{float64(x.Members), value(x)})
		}
		return []series{one}
	}
	s.panel(frame{80, 70, 260, 180}, "Sent by each host, idle", "bytes in a second, over the number of hosts", line(func(x MembersSample) float64 { return x.Bytes }),
		func(v float64) string { return commas(int(v)) + " B" })
	s.panel(frame{560, 70, 260, 180}, "Held by each host", "its memory, over the number of hosts", line(func(x MembersSample) float64 { return x.Memory * 1024 }),
		func(v float64) string { return fmt.Sprintf("%.2f MiB", v/(1<<20)) })
	return s.end()
}
