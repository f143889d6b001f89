package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/remora-plugins/remora/sdk/client"
	"github.com/remora-plugins/remora/sdk/volume"
)

const (
	mobyProxy   = "moby daemon/volume/drivers/proxy.go"
	mobyAdapter = "moby daemon/volume/drivers/adapter.go"
	mobyStore   = "moby daemon/volume/service/store.go"
)

func volumeCases() []Case {
	return ofKind(Volume, []Case{
		{
			ID: "volume/lifecycle", Basic: true, run: volumeLifecycle,
			Asserts: "A volume that is created is there for Get and List, can be mounted and unmounted, and is gone when it was removed.",
			Source:  docVolume + ", VolumeDriver; " + mobyStore + ", create and Remove",
		},
		{
			ID: "volume/capabilities", run: volumeCapabilities,
			Asserts: "The scope is local or global, if Capabilities is there at all.",
			Source:  docVolume + ", /VolumeDriver.Capabilities; " + mobyAdapter + ", getCapabilities",
		},
		{
			ID: "volume/get-absent", run: getAbsent,
			Asserts: "Get of a volume that does not exist is an error or has no volume: an engine with an unknown name asks every plugin, and believes the first that knows it.",
			Source:  mobyStore + ", getVolume",
		},
		{
			ID: "volume/get-exact", run: getExact,
			Asserts: "Get finds the volume of exactly that name, not one whose name begins with it.",
			Source:  mobyStore + ", getVolume; moby issue 31492",
		},
		{
			ID: "volume/get-fields", run: getFields,
			Asserts: "Get answers with the name, a CreatedAt of RFC 3339 if there is one, and an object as Status if there is one; anything else breaks the whole answer.",
			Source:  mobyProxy + ", Get (type Volume); " + docVolume + ", /VolumeDriver.Get",
		},
		{
			ID: "volume/list-agrees", run: listAgrees,
			Asserts: "List names each volume once, and Get knows each that List names.",
			Source:  mobyStore + ", list; " + podmanVol + ", ListVolumes (podman volume reload)",
		},
		{
			ID: "volume/list-any-body", run: listAnyBody,
			Asserts: "List and Capabilities are answered whether the body is an empty object, as of dockerd, or empty, as of Podman.",
			Source:  mobyProxy + ", List; " + podmanVol + ", ListVolumes",
		},
		{
			ID: "volume/create-twice", run: createTwice,
			Asserts: "Create of what is there succeeds and changes nothing: an engine repeats a call whose answer was lost, and each host of a cluster creates the volume it uses.",
			Source:  mobyClient + ", callWithRetry; moby issue 31526",
		},
		{
			ID: "volume/create-keeps-data", run: createKeepsData,
			Asserts: "Create of what is there leaves its data alone.",
			Source:  mobyClient + ", callWithRetry; moby issue 31526",
		},
		{
			ID: "volume/create-without-options", run: createWithoutOptions,
			Asserts: "Create works with null, none and no Opts at all, as engines send them for anonymous volumes.",
			Source:  mobyProxy + ", Create; " + podmanVol + ", CreateVolume",
		},
		{
			ID: "volume/create-at-once", run: createAtOnce,
			Asserts: "Volumes that are created at once are all there, and one name that is created many times at once is one volume.",
			Source:  mobyStore + ", create (one lock for each name); moby issue 31526",
		},
		{
			ID: "volume/names", run: volumeNames,
			Asserts: "Every name that engines let users choose works as it is: with dots, underscores and capitals, of 64 characters, and apart from one that differs in case alone.",
			Source:  "moby daemon/volume/local/local.go, volumeNameRegex (names.RestrictedNamePattern); anonymous volumes have 64 characters",
		},
	})
}

func ofKind(kind string, cases []Case) []Case {
	for i := range cases {
		cases[i].Kind = kind
	}
	return cases
}

// made is a volume that a case has made, or tried to.
type made struct {
	name    string
	mounts  map[string]int // how often each ID has it mounted, at the most
	removed bool           // the plugin said that it removed it
}

// lateTime is how long calls may still be at work in a plugin whose caller has hung up.
const lateTime = 20 * time.Second

// remove undoes everything. Where a call was given up, the plugin may be at work on it still.
// What the plugin says that it removed is looked for all the same.
func (m *made) remove(ctx context.Context, v client.Volume, t *T) {
	if m.removed {
		if _, err := v.Get(ctx, m.name); err != nil {
			return
		}
	}
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		for id, n := range m.mounts {
			for range n {
				_ = v.Unmount(ctx, m.name, id) // what is left is seen by Get below
			}
		}
		removed := v.Remove(ctx, m.name)
		_, err := v.Get(ctx, m.name)
		if err != nil && (removed == nil || !unanswered(err)) {
			return
		}
		if !t.gaveUp() || time.Since(begin) > lateTime || ctx.Err() != nil {
			t.left("volume "+m.name, cmp.Or(removed, errors.New("the plugin says it is removed, and has it still")))
			return
		}
	}
}

// name returns a name for a volume of this case.
func (t *T) name(suffix string) string {
	return Prefix + t.p.run + "-" + t.hex(12)[8:] + "-" + suffix
}

// mountID returns the n-th mount ID, as dockerd makes them.
func (t *T) mountID(n int) string { return t.hex(64, "mount", n) }

// options are those with which the volume or network of that name is made.
func (t *T) options(name string) map[string]string {
	opts := maps.Clone(t.p.options.Create)
	for key, value := range opts {
		opts[key] = strings.ReplaceAll(value, "{name}", name)
	}
	return opts
}

// track notes a volume before it is asked for: the plugin may have it though it never said so.
func (t *T) track(name string) *made {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.volumes {
		if m.name == name {
			m.removed = false
			return m
		}
	}
	m := &made{name: name, mounts: map[string]int{}}
	t.volumes = append(t.volumes, m)
	return m
}

func (t *T) tryCreate(name string) error {
	t.track(name)
	return t.c.Volume().Create(t.ctx, name, t.options(name))
}

// create makes a volume and returns its name.
func (t *T) create(suffix string) string {
	name := t.name(suffix)
	t.must("Create", t.tryCreate(name))
	return name
}

func (t *T) tryMount(v client.Volume, name, id string) (string, error) {
	m := t.track(name)
	t.mu.Lock()
	m.mounts[id]++
	t.mu.Unlock()
	return v.Mount(t.ctx, name, id)
}

func (t *T) mount(name, id string) string {
	path, err := t.tryMount(t.c.Volume(), name, id)
	t.must("Mount", err)
	return path
}

func (t *T) tryUnmount(v client.Volume, name, id string) error {
	err := v.Unmount(t.ctx, name, id)
	if m := t.track(name); err == nil {
		t.mu.Lock()
		m.mounts[id] = max(0, m.mounts[id]-1)
		t.mu.Unlock()
	}
	return err
}

func (t *T) unmount(name, id string) { t.must("Unmount", t.tryUnmount(t.c.Volume(), name, id)) }

func (t *T) remove(name string) {
	t.must("Remove", t.c.Volume().Remove(t.ctx, name))
	t.track(name).removed = true
}

// get wants the volume to be there.
func (t *T) get(name string) volume.Info {
	info, err := t.c.Volume().Get(t.ctx, name)
	t.must("Get", err)
	if info.Name != name {
		t.Fatalf("Get of %q: the answer names %q", name, info.Name)
	}
	return info
}

// gone wants the volume not to be there.
func (t *T) gone(what, name string) {
	info, err := t.c.Volume().Get(t.ctx, name)
	switch {
	case err == nil:
		t.Errorf("Get of %s: the plugin has it: %+v", what, info)
	case unanswered(err):
		t.Fatalf("Get of %s: %w", what, err)
	}
}

// list returns how often List has each name of this run.
func (t *T) list() map[string]int {
	all, err := t.c.Volume().List(t.ctx)
	t.must("List", err)
	names := map[string]int{}
	for _, info := range all {
		if info.Name == "" {
			t.Errorf("List has a volume without a name")
		}
		if strings.HasPrefix(info.Name, Prefix+t.p.run) {
			names[info.Name]++
		}
	}
	return names
}

// listed wants List to have a name so often.
func (t *T) listed(name string, want int) {
	if got := t.list()[name]; got != want {
		t.Errorf("List has volume %q %d times, want %d", name, got, want)
	}
}

func volumeLifecycle(t *T) {
	name := t.name("a")
	t.gone("a volume that was never created", name)
	t.must("Create", t.tryCreate(name))
	t.get(name)
	t.listed(name, 1)
	path := t.mount(name, t.mountID(1))
	if !filepath.IsAbs(path) {
		t.Errorf("Mount: mountpoint %q is no absolute path; a container that is started with it has nothing mounted", path)
	}
	t.get(name)
	t.unmount(name, t.mountID(1))
	t.get(name)
	t.remove(name)
	t.gone("a volume that was removed", name)
	t.listed(name, 0)
}

func volumeCapabilities(t *T) {
	for range 2 {
		var caps struct{ Capabilities struct{ Scope string } }
		err := t.c.Call(t.ctx, "VolumeDriver.Capabilities", struct{}{}, &caps)
		if err != nil && !unanswered(err) {
			t.Skipf("the plugin does not have Capabilities, which counts as local")
		}
		t.must("Capabilities", err)
		if s := strings.ToLower(caps.Capabilities.Scope); s != "local" && s != "global" {
			t.Errorf("Capabilities: scope %q is neither local nor global", caps.Capabilities.Scope)
		}
	}
}

func getAbsent(t *T) {
	t.gone("a volume that was never created", t.name("absent"))
	t.create("a")
	t.gone("a volume that was never created", t.name("absent"))
}

func getExact(t *T) {
	name := t.create("long-name")
	for _, other := range []string{t.name("long"), t.name("long-nam"), t.name("long-name-er"), strings.ToUpper(name)} {
		t.gone(fmt.Sprintf("%q, while there is %q,", other, name), other)
	}
}

func getFields(t *T) {
	name := t.create("a")
	for _, mounted := range []bool{false, true} {
		if mounted {
			t.mount(name, t.mountID(1))
		}
		var answer struct {
			Volume struct {
				Name, Mountpoint string
				CreatedAt        string
				Status           map[string]json.RawMessage
			}
		}
		t.must("Get", t.c.Call(t.ctx, "VolumeDriver.Get", map[string]string{"Name": name}, &answer))
		if answer.Volume.Name != name {
			t.Errorf("Get of %q: the answer names %q", name, answer.Volume.Name)
		}
		t.get(name) // a CreatedAt that an engine cannot read is an error here
	}
}

func listAgrees(t *T) {
	want := map[string]int{}
	for _, suffix := range []string{"b", "a", "c"} {
		want[t.create(suffix)] = 1
	}
	for range 2 {
		if got := t.list(); !maps.Equal(got, want) {
			t.Errorf("List has the volumes %v of this run, want %v", got, want)
		}
		for name := range t.list() {
			t.get(name)
		}
	}
}

func listAnyBody(t *T) {
	for _, body := range []string{"", "{}", "{}\n"} {
		a, err := t.once("VolumeDriver.List", body)
		t.must("List", err)
		if !a.success() {
			t.Errorf("List with body %q: %s", body, a)
		}
	}
	capabilities := -1
	for _, body := range []string{"{}\n", ""} {
		a, err := t.once("VolumeDriver.Capabilities", body)
		t.must("Capabilities", err)
		if capabilities < 0 {
			capabilities = a.status
		}
		if a.status != capabilities {
			t.Errorf("Capabilities with body %q: %s; with an empty object status %d", body, a, capabilities)
		}
	}
}

func createTwice(t *T) {
	name := t.create("a")
	first := t.get(name)
	for range 2 {
		if err := t.tryCreate(name); err != nil {
			t.Errorf("Create of what was created a moment ago with the same options: %w", err)
		}
	}
	if second := t.get(name); !first.CreatedAt.Equal(second.CreatedAt) {
		t.Errorf("created at %v, and after another Create at %v", first.CreatedAt, second.CreatedAt)
	}
	t.listed(name, 1)
}

func createKeepsData(t *T) {
	t.here()
	name := t.create("a")
	path := t.mount(name, t.mountID(1))
	t.write(path, "kept")
	_ = t.tryCreate(name) // whether that succeeds, another case says
	t.read(path, "kept")
	t.unmount(name, t.mountID(1))
	_ = t.tryCreate(name)
	t.read(t.mount(name, t.mountID(2)), "kept")
	t.unmount(name, t.mountID(2))
}

func createWithoutOptions(t *T) {
	if len(t.p.options.Create) > 0 {
		t.Skipf("options were given that volumes are made with")
	}
	for i, opts := range []string{`,"Opts":null`, `,"Opts":{}`, ""} {
		name := t.name(fmt.Sprint("a", i))
		t.track(name)
		a, err := t.once("VolumeDriver.Create", fmt.Sprintf(`{"Name":%q%s}`, name, opts))
		t.must("Create", err)
		if !a.success() {
			t.Errorf(`Create with %q behind the name: %s`, opts, a)
			continue
		}
		t.get(name)
	}
}

func createAtOnce(t *T) {
	var all sync.WaitGroup
	same := t.name("same")
	for i := range 7 {
		name := t.name(fmt.Sprint("v", i))
		all.Go(func() {
			if err := t.tryCreate(name); err != nil {
				t.Errorf("one of 7 Creates at once: %w", err)
			}
		})
		all.Go(func() {
			if err := t.tryCreate(same); err != nil {
				t.Errorf("one of 7 Creates of one name at once: %w", err)
			}
		})
	}
	all.Wait()
	got := t.list()
	for _, m := range t.volumes {
		if got[m.name] != 1 {
			t.Errorf("List has volume %q %d times after all were created at once", m.name, got[m.name])
		}
	}
}

func volumeNames(t *T) {
	long := t.name("")
	long += strings.Repeat("n", 64-len(long))
	names := []string{t.name("A.b_c-d"), t.name("a.b_c-d"), t.name("x.json"), t.name("x.."), t.name("0"), long}
	for _, name := range names {
		if err := t.tryCreate(name); err != nil {
			t.Errorf("Create of %q: %w", name, err)
		}
	}
	got := t.list()
	for _, name := range names {
		if got[name] != 1 {
			t.Errorf("List has volume %q %d times, want once", name, got[name])
		}
	}
	if t.p.away || t.result.Outcome != Pass {
		return
	}
	upper, lower := t.mount(names[0], t.mountID(1)), t.mount(names[1], t.mountID(2))
	t.write(upper, "upper")
	t.write(lower, "lower")
	t.read(upper, "upper")
	t.unmount(names[0], t.mountID(1))
	t.unmount(names[1], t.mountID(2))
}

// failed wants a raw call to have failed, and in a way in which Podman sees it, too.
func (t *T) failed(what, method, body string) {
	a, err := t.once(method, body)
	t.must(what, err)
	var e struct{ Err string }
	switch {
	case a.status == http.StatusOK:
		t.Errorf("%s: %s; Podman takes every answer of status 200 for success", what, a)
	case decode(a.body, &e) != nil || e.Err == "":
		t.Errorf("%s: %s; Podman reads the reason from Err of a JSON object", what, a)
	}
}
