package csi

import (
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// TestDriver proves the driver csi on the CSI driver that listens at REMORA_CSI_ENDPOINT.
func TestDriver(t *testing.T) {
	s := fromEnv(t)
	if s.endpoint == "" {
		t.Skip("needs driver: REMORA_CSI_ENDPOINT names no CSI driver")
	}
	prove(t, s)
}

// settings are what one proof is about.
type settings struct {
	endpoint string
	keys     string // of the pool
	size     string // of a volume, or empty
	nocopy   bool   // whether the engine must not copy the image's files into a volume
	many     int    // volumes at once
	results  string // a file to which the table is appended
}

func fromEnv(t *testing.T) settings {
	t.Helper()
	s := settings{
		endpoint: strings.TrimPrefix(given["REMORA_CSI_ENDPOINT"], "unix://"), size: given["REMORA_CSI_SIZE"],
		nocopy: given["REMORA_CSI_NOCOPY"] != "", results: given["REMORA_CSI_RESULTS"], many: 10,
	}
	if n := given["REMORA_CSI_MANY"]; n != "" {
		if _, err := fmt.Sscan(n, &s.many); err != nil {
			t.Fatalf("REMORA_CSI_MANY: %v", err)
		}
	}
	if file := given["REMORA_CSI_POOL"]; file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s.keys = string(b)
	}
	return s
}

// proof is one run with one driver.
type proof struct {
	*rig
	settings
	*table
}

// prove takes a driver through all that it says it can do.
func prove(t *testing.T, s settings) {
	t.Helper()
	if !strings.Contains(s.keys, "namespace") { // names of this run alone, as an earlier one may have left something
		s.keys = fmt.Sprintf("namespace = %q\n%s", "t"+strings.ToLower(rand.Text())[:8], s.keys)
	}
	p := &proof{rig: newRig(t, s.endpoint, s.keys), settings: s}
	t.Cleanup(p.tidy)
	p.table = newTable(t, p.tap)
	p.life()
	p.copies()
	p.groups()
	p.grow()
	p.crash()
	if p.many > 0 {
		p.parallel()
	}
	p.down()
	p.step("remora trash empty", func() { p.MustCli("trash", "empty", "--yes") })
	if left := p.tap.Left(); len(left) > 0 {
		t.Errorf("left at the storage: %v", left)
	}
	for _, v := range p.tap.Violations() {
		t.Errorf("out of order: %s", v)
	}
	if left := p.published(); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
	p.print(s.results)
}

// tidy removes what a run that failed has left at the storage.
func (p *proof) tidy() {
	if !p.t.Failed() {
		return
	}
	ids, _ := p.Docker("ps", "-aq")
	for id := range strings.FieldsSeq(ids) {
		_, _ = p.Docker("rm", "-f", id)
	}
	names, _ := p.Docker("volume", "ls", "-q", "-f", "driver="+pool)
	for name := range strings.FieldsSeq(names) {
		if _, err := p.Docker("volume", "rm", name); err != nil {
			p.t.Logf("left: %v", err)
		}
	}
	_, _ = p.Cli("trash", "empty", "--yes")
	if left := p.tap.Left(); len(left) > 0 {
		p.t.Logf("left at the storage: %v", left)
	}
}

func (p *proof) create(name string, options ...string) {
	p.t.Helper()
	var args []string
	for _, o := range options {
		args = append(args, "-o", o)
	}
	p.make(name, args...)
}

// make creates a volume with more arguments of the engine's command.
func (p *proof) make(name string, more ...string) {
	p.t.Helper()
	args := []string{"volume", "create", "-d", pool}
	if p.size != "" {
		args = append(args, "-o", "size="+p.size)
	}
	p.MustDocker(slices.Concat(args, more, []string{name})...)
}

// run runs a container with a volume.
func (p *proof) in(volume, script string) string {
	p.t.Helper()
	if p.nocopy {
		return p.MustDocker("run", "--rm", "--network=none", "-v", volume+":/data:nocopy", lab.ImageName, "sh", "-c", script)
	}
	return p.mustContainer(volume, script)
}

// has fails the test unless a volume has the data of fill.
func (p *proof) has(volume, sum string) {
	p.t.Helper()
	if got := p.in(volume, "md5sum </data/blob"); got != sum {
		p.t.Errorf("%s: the data has the sum %q, want %q", volume, got, sum)
	}
}

// fill writes data and returns its sum.
func (p *proof) fill(volume string) string {
	p.t.Helper()
	return p.in(volume, "dd if=/dev/urandom of=/data/blob bs=64k count=64 2>/dev/null && sync && md5sum </data/blob")
}

// life is what every volume goes through.
func (p *proof) life() {
	p.t.Helper()
	p.step("docker volume create", func() { p.create("v1") })
	p.step("again, with the same options", func() { p.create("v1") })
	var sum string
	p.step("docker run, the first: write 4 MiB", func() { sum = p.fill("v1") })
	p.step("docker run again: read them", func() { p.has("v1", sum) })
	p.step("two containers at once", func() {
		p.MustDocker("run", "-d", "--name", "holder", "--network=none", "-v", "v1:/data:nocopy", lab.ImageName, "sleep", "1000")
		p.MustDocker("run", "--rm", "--network=none", "-v", "v1:/data:nocopy", lab.ImageName, "sh", "-c", "echo second >/data/second")
		if got := p.MustDocker("exec", "holder", "cat", "/data/second"); got != "second" {
			p.t.Errorf("the first container reads %q", got)
		}
	})
	p.step("a name that is in use", func() {
		if _, err := p.Docker("volume", "rm", "v1"); err == nil {
			p.t.Error("a volume that is in use was removed")
		}
		if _, err := p.Docker("run", "--rm", "--network=none", "-v", "v1:/data:ro,nocopy", lab.ImageName, "sh", "-c", "echo no >/data/no"); err == nil {
			p.t.Error("a volume that is mounted to be read was written")
		}
	})
	p.step("the end of the last", func() { p.MustDocker("rm", "-f", "holder") })
	p.step("detached", p.down)
	p.step("docker run after that: read them", func() { p.has("v1", sum) })
	p.step("docker volume rm", func() { p.MustDocker("volume", "rm", "v1") })
	if out := p.MustDocker("volume", "ls", "-q"); out != "" {
		p.t.Errorf("left: %s", out)
	}
}

func (p *proof) can(c csi.ControllerServiceCapability_RPC_Type) bool {
	return p.tap.Facts().Controller[c]
}

// copies is snapshots, and volumes made of them and of others.
func (p *proof) copies() {
	p.t.Helper()
	snapshots := p.can(csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)
	clones := p.can(csi.ControllerServiceCapability_RPC_CLONE_VOLUME)
	if !snapshots && !clones {
		p.note("snapshots and clones", "not announced")
		return
	}
	p.create("origin")
	sum := p.fill("origin")
	if snapshots {
		p.step("remora snapshot create", func() { p.MustCli("snapshot", "create", "--pool", pool, "origin", "s1") })
		p.in("origin", "echo changed >/data/blob")
		p.step("docker volume create -o from=VOLUME@SNAPSHOT", func() { p.create("restored", "from=origin@s1") })
		p.step("read the copy", func() { p.has("restored", sum) })
		if out := p.MustCli("snapshot", "ls", "--pool", pool, "origin"); !strings.Contains(out, "s1") {
			p.t.Errorf("the snapshot is not listed: %s", out)
		}
		sum = p.fill("origin")
		p.MustDocker("volume", "rm", "restored")
		p.step("remora snapshot rm", func() { p.MustCli("snapshot", "rm", "--pool", pool, "--yes", "origin", "s1") })
	} else {
		p.note("snapshots", "not announced")
	}
	if clones {
		p.step("docker volume create -o from=VOLUME", func() { p.create("clone", "from=origin") })
		p.step("read the clone", func() { p.has("clone", sum) })
		p.MustDocker("volume", "rm", "clone")
	} else {
		p.note("clones", "not announced")
	}
	p.MustDocker("volume", "rm", "origin")
}

// grow makes a volume larger, while it is mounted where that is possible.
func (p *proof) grow() {
	p.t.Helper()
	if !p.can(csi.ControllerServiceCapability_RPC_EXPAND_VOLUME) || p.size == "" {
		p.note("remora volume resize", "not announced")
		return
	}
	p.create("small")
	sum := p.fill("small")
	larger := double(p.t, p.size)
	p.MustDocker("run", "-d", "--name", "user", "--network=none", "-v", "small:/data:nocopy", lab.ImageName, "sleep", "1000")
	online := true
	p.step("remora volume resize, mounted", func() {
		if _, err := p.Cli("volume", "resize", "--pool", pool, "small", larger); err != nil {
			online = false
			p.note("remora volume resize, mounted", "refused: "+err.Error())
		}
	})
	has := p.blocks(p.MustDocker("exec", "user", "df", "-k", "/data"))
	p.MustDocker("rm", "-f", "user")
	if !online {
		p.down()
		p.step("remora volume resize", func() { p.MustCli("volume", "resize", "--pool", pool, "small", larger) })
	}
	p.has("small", sum)
	p.down()
	p.step("mounted again, as large", func() {
		if later := p.blocks(p.in("small", "df -k /data")); online && later != has {
			p.t.Errorf("mounted again it has %s blocks, and had %s when it had been made larger", later, has)
		}
	})
	p.MustDocker("volume", "rm", "small")
}

// blocks is how large a file system is, by what df prints. Its first column may be a line of its own.
func (p *proof) blocks(df string) string {
	p.t.Helper()
	words := strings.Fields(df) // seven are of the head
	if len(words) < 9 {
		p.t.Fatalf("df printed %q", df)
	}
	return words[8]
}

// double is a size twice as large.
func double(t *testing.T, size string) string {
	t.Helper()
	var n int
	var unit string
	if _, err := fmt.Sscanf(size, "%d%s", &n, &unit); err != nil {
		t.Fatalf("size %q: %v", size, err)
	}
	return fmt.Sprintf("%d%s", 2*n, unit)
}

// crash kills the daemon while a container has a volume.
func (p *proof) crash() {
	p.t.Helper()
	p.create("held")
	sum := p.fill("held")
	p.MustDocker("run", "-d", "--name", "holder", "--network=none", "-v", "held:/data:nocopy", lab.ImageName, "sleep", "1000")
	p.daemon.Kill()
	if got := p.MustDocker("exec", "holder", "sh", "-c", "md5sum </data/blob"); got != sum {
		p.t.Errorf("with the daemon killed the data has the sum %q, want %q", got, sum)
	}
	p.step("the daemon again, after kill -9", func() {
		p.daemon = p.Start(nil, p.remora, "daemon")
		p.WaitReady(p.daemon)
	})
	p.MustDocker("rm", "-f", "holder")
	p.step("detached after that", p.down)
	p.has("held", sum)
	p.MustDocker("volume", "rm", "held")
}

// parallel is many volumes at once, as an engine would ask for them: over the plugin's socket, as the time of
// programs that start is not what is measured.
func (p *proof) parallel() {
	p.t.Helper()
	endpoint, err := client.Dirs{Sockets: p.Path("/run/docker/plugins")}.Find(pool)
	if err != nil {
		p.t.Fatal(err)
	}
	c, err := client.New(endpoint, client.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	options := map[string]string{}
	if p.size != "" {
		options["size"] = p.size
	}
	each := func(verb string, do func(name string) error) {
		p.step(fmt.Sprintf("%d volumes at once: %s", p.many, verb), func() {
			errs := make(chan error, p.many)
			for i := range p.many {
				go func() { errs <- do(fmt.Sprintf("many%d", i)) }()
			}
			for range p.many {
				if err := <-errs; err != nil {
					p.t.Error(err)
				}
			}
		})
	}
	ctx, v := p.t.Context(), c.Volume()
	each("create", func(name string) error { return v.Create(ctx, name, options) })
	p.overhead(v)
	each("mount", func(name string) error { _, err := v.Mount(ctx, name, "id"); return err })
	each("unmount", func(name string) error { return v.Unmount(ctx, name, "id") })
	each("remove", func(name string) error { return v.Remove(ctx, name) })
}

// overhead is how long a volume takes to be mounted and unmounted besides what its driver takes, for each call. The first
// time, which may attach it, does not count.
func (p *proof) overhead(v client.Volume) {
	p.t.Helper()
	spent := func() (calls int, sum time.Duration) {
		for _, f := range p.tap.Figures() {
			calls, sum = calls+f.Calls, sum+f.Sum
		}
		return calls, sum
	}
	var calls int
	var sum time.Duration
	var began time.Time
	for i := range 11 {
		if i == 1 {
			calls, sum = spent()
			began = time.Now()
		}
		if _, err := v.Mount(p.t.Context(), "many0", "id"); err != nil {
			p.t.Fatal(err)
		}
		if err := v.Unmount(p.t.Context(), "many0", "id"); err != nil {
			p.t.Fatal(err)
		}
	}
	took := time.Since(began)
	after, total := spent()
	if after == calls {
		p.t.Fatal("mounts and unmounts made no call")
	}
	p.rows = append(p.rows, row{what: "what Remora adds to each call", took: (took - (total - sum)) / time.Duration(after-calls), rpcs: after - calls})
}

// published are the mounts that are left of the pool's volumes.
func (p *proof) published() (left []string) {
	for _, at := range mountsBelow(p.t, p.run) {
		if base := strings.TrimPrefix(at, p.run); strings.Count(base, "/") > 4 { // below RUN/csi/POOL/m
			left = append(left, at)
		}
	}
	return left
}
