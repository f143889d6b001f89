package check

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/volume"
)

func requestCases() []Case {
	return ofKind(Volume, []Case{
		{
			ID: "volume/empty-body", run: volumeEmptyBody,
			Asserts: "A call without a body is not answered as if it had been carried out: it is how an engine repeats a call after its connection broke. Remove is called so only where nobody else's volumes are.",
			Source:  mobyClient + ", callWithRetry (the body was read when the first attempt was sent)",
		},
		{
			ID: "volume/not-json", run: volumeNotJSON,
			Asserts: "A body that is not JSON, or not an object with a name, is refused. Remove is called so only where nobody else's volumes are.",
			Source:  docAPI + ", introduction (requests are JSON)",
		},
		{
			ID: "volume/secrets", run: volumeSecrets,
			Asserts: "The value of an option called password is in no error and in no Status, which every user of the engine may read.",
			Source:  docVolume + ", /VolumeDriver.Get (Status is shown by docker volume inspect); docker/cli issue 2802",
		},
		{
			ID: "volume/unknown-fields", run: volumeUnknownFields,
			Asserts: "Fields that the plugin does not know are no error: engines have added some, such as ID in 1.12.",
			Source:  docAPI + ", introduction; " + mobyProxy + " (encoding/json)",
		},
	})
}

func volumeEmptyBody(t *T) {
	name := t.create("a")
	shared := t.shared()
	for _, method := range []string{"Create", "Mount", "Unmount", "Remove"} {
		if method != "Remove" || !shared {
			t.refused(method+" without a body", "VolumeDriver."+method, "")
		}
	}
	t.nameless(shared)
	t.get(name)
}

// shared tells whether the plugin has volumes of others. One that takes no name for the
// directory of them all would remove those when it is asked to remove what has no name.
func (t *T) shared() bool {
	all, err := t.c.Volume().List(t.ctx)
	t.must("List", err)
	return slices.ContainsFunc(all, func(i volume.Info) bool { return !strings.HasPrefix(i.Name, Prefix+t.p.run) })
}

// nameless takes a volume without a name away, which a request that should have been refused
// has made.
func (t *T) nameless(shared bool) {
	all, err := t.c.Volume().List(t.ctx)
	t.must("List", err)
	if !slices.ContainsFunc(all, func(i volume.Info) bool { return i.Name == "" }) {
		return
	}
	t.Errorf("List has a volume without a name, which a request without one has made")
	if shared {
		t.left("a volume without a name", errors.New("to remove it might remove those of others"))
	} else {
		t.track("")
	}
}

func volumeNotJSON(t *T) {
	name := t.create("a")
	shared := t.shared()
	for _, method := range []string{"Create", "Mount", "Remove"} {
		if method == "Remove" && shared {
			continue
		}
		for _, body := range []string{"x", `{"Name":`, `["` + name + `"]`, `{"Name":1}`, "\x00"} {
			t.refused(fmt.Sprintf("%s of %q", method, body), "VolumeDriver."+method, body)
		}
	}
	t.nameless(shared)
	t.get(name)
}

func volumeSecrets(t *T) {
	secret := "canary-" + t.hex(24, "secret")
	name := t.name("a")
	t.track(name)
	opts := t.options(name)
	if opts == nil {
		opts = map[string]string{}
	}
	if given := opts["password"]; given != "" {
		secret = given
	}
	opts["password"] = secret
	err := t.c.Volume().Create(t.ctx, name, opts)
	if unanswered(err) {
		t.Fatalf("Create with a password: %w", err)
	}
	if err != nil {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("Create with option password=%s fails, and the error has the password in it: %v", secret, err)
		}
		return
	}
	t.hides(secret, t.get(name).Status)
	if _, err := t.tryMount(t.c.Volume(), name, t.mountID(1)); err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("the error of Mount has the password of Create in it: %v", err)
	}
	t.hides(secret, t.get(name).Status)
}

func (t *T) hides(secret string, status map[string]any) {
	if text := fmt.Sprint(status); strings.Contains(text, secret) {
		t.Errorf("the Status of Get has the password of Create in it: %s", text)
	}
}

func volumeUnknownFields(t *T) {
	name := t.name("a")
	t.track(name)
	type request map[string]any
	with := func(more request) request {
		r := request{"Name": name, "Later": []any{1, 2, request{"x": nil}}, "Force": true}
		maps.Copy(r, more)
		return r
	}
	call := func(method string, r request) {
		t.must(method, t.c.Call(t.ctx, "VolumeDriver."+method, r, new(failed)))
	}
	call("Create", with(request{"Opts": t.options(name), "Labels": request{"a": "b"}}))
	call("Get", with(nil))
	t.track(name).mounts[t.mountID(1)]++
	call("Mount", with(request{"ID": t.mountID(1)}))
	call("Unmount", with(request{"ID": t.mountID(1)}))
	call("Remove", with(nil))
	t.gone("a volume that was removed", name)
}
