package launch

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/csi/conn"
	"github.com/remora-plugins/remora/internal/managed/reference"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Keys are the keys of a pool that say how its driver is started. They are embedded in the pool's own.
type Keys struct {
	Endpoint   string   `opt:"endpoint" help:"unix socket of a CSI driver that runs already, such as /run/csi/csi.sock"`
	Controller string   `opt:"controller_endpoint" help:"unix socket of its controller service, where that is another one"`
	Image      string   `opt:"image" help:"image of the CSI driver, which the daemon fetches and runs, best with its digest: REGISTRY/NAME@sha256:…"`
	Command    []string `opt:"command" help:"program of the host that is the CSI driver, with its arguments, which the daemon runs; with an image, what is run in it in place of its entrypoint"`
	Args       []string `opt:"args" help:"arguments of the image's program; ${CSI_ENDPOINT} and ${NODE_ID} are put in here, in command and in env"`
	Env        []string `opt:"env" help:"environment of the CSI driver, each as NAME=VALUE; a secret as NAME=file:/PATH, which only its owner may read, or NAME=env:VARIABLE"`
	Binds      []string `opt:"binds" help:"files and directories of the host that the image's program has, each as /PATH, /PATH:/INSIDE or /PATH:/INSIDE:ro"`
	Caps       []string `opt:"caps" help:"capabilities that the image's program has besides those of any container, such as SYS_ADMIN; ALL for all that the daemon has"`
	NodeID     string   `opt:"node_id" help:"what ${NODE_ID} stands for; without it the host's name"`
}

// Kind is how a driver comes to be there.
type Kind string

// The kinds of drivers.
const (
	External Kind = "external" // it runs already
	Command  Kind = "command"  // it is a program of the host
	Image    Kind = "image"    // it is in an image
)

// Kind returns how the driver of these keys is started.
func (k Keys) Kind() Kind {
	switch {
	case k.Image != "":
		return Image
	case len(k.Command) > 0:
		return Command
	}
	return External
}

// Check refuses keys that cannot be meant, without a look at anything but files that they name.
func (k Keys) Check() error {
	bad := func(key, format string, args ...any) error {
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q: "+format, append([]any{key}, args...)...)
	}
	started := map[string]int{
		"args": len(k.Args), "env": len(k.Env), "binds": len(k.Binds), "caps": len(k.Caps), "node_id": len(k.NodeID),
	}
	kind := k.Kind()
	switch {
	case kind == External && k.Endpoint == "":
		return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "none of the keys endpoint, command and image says where the CSI driver is"),
			"give the path of its socket as endpoint, a program of this host as command, or an image")
	case kind != External && k.Endpoint+k.Controller != "":
		return bad("endpoint", "the socket of a driver that the daemon starts is made by the daemon; leave the key out, and write ${CSI_ENDPOINT} where the driver wants to know it")
	}
	if kind == External {
		for _, key := range slices.Sorted(maps.Keys(started)) {
			if started[key] > 0 {
				return bad(key, "the daemon does not start a driver that has an endpoint")
			}
		}
		for key, path := range map[string]string{"endpoint": k.Endpoint, "controller_endpoint": k.Controller} {
			if path == "" {
				continue
			}
			if err := conn.CheckSocket(path); err != nil {
				return bad(key, "%w", err)
			}
			if fi, err := os.Stat(socketPath(path)); err == nil && fi.Mode()&os.ModeSocket == 0 {
				return bad(key, "%q is not a socket", path)
			}
		}
		return nil
	}
	if kind == Command {
		for _, key := range []string{"args", "binds", "caps"} {
			if started[key] > 0 {
				return bad(key, "only an image has them; a command has its arguments, the files and the rights of the host")
			}
		}
		if !filepath.IsAbs(k.Command[0]) {
			return bad("command", "%q is not the absolute path of a program", k.Command[0])
		}
	} else if _, err := reference.Parse(k.Image); err != nil {
		return bad("image", "%w", err)
	}
	for key, texts := range map[string][]string{"command": k.Command, "args": k.Args, "env": k.Env} {
		for _, text := range texts {
			if _, err := substitute(text, nil); err != nil {
				return bad(key, "%w", err)
			}
		}
	}
	for _, e := range k.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || !variableForm.MatchString(name) {
			return bad("env", "%q is not NAME=VALUE", name) // and not what may be a secret
		}
	}
	for _, b := range k.Binds {
		if _, err := parseBind(b); err != nil {
			return bad("binds", "%w", err)
		}
	}
	if _, err := capabilities(k.Caps, 0); err != nil {
		return bad("caps", "%w", err)
	}
	return nil
}

var variableForm = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// secretRef returns what the runtime reads a secret from, where a value is a reference to one. An URL such as file:///x is none.
func secretRef(value string) (from string, ok bool) {
	kind, at, _ := strings.Cut(value, ":")
	switch {
	case kind == "file" && filepath.IsAbs(at) && !strings.HasPrefix(at, "//"):
		return at, true
	case kind == "env" && variableForm.MatchString(at):
		return value, true
	}
	return "", false
}

// socketPath is the path of a socket, which may have a scheme in front.
func socketPath(endpoint string) string {
	return strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
}

// maxSocket is how long the path of a socket may be (unix(7)).
const maxSocket = 107

var placeholder = regexp.MustCompile(`\$?\$\{[^}]*\}`)

// placeholders are what a text may have, without values.
var placeholders = []string{"CSI_ENDPOINT", "NODE", "NODE_ID"}

// substitute puts values in for ${NAME}. $${NAME} stays as ${NAME}. What is none of the names is refused.
func substitute(text string, values map[string]string) (string, error) {
	var failed error
	out := placeholder.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasPrefix(found, "$$") {
			return found[1:]
		}
		name := found[2 : len(found)-1]
		if !slices.Contains(placeholders, name) {
			failed = errdefs.Hint(catalog.Unknown("placeholder", name, placeholders), "write $${"+name+"} where the driver is to see it as it is")
		}
		return values[name]
	})
	return out, failed
}

// bind is something of the host that a driver has.
type bind struct {
	source, inside string
	readOnly       bool
}

func parseBind(text string) (bind, error) {
	parts := strings.Split(text, ":")
	b := bind{source: parts[0], inside: parts[0]}
	if n := len(parts); n > 1 && (parts[n-1] == "ro" || parts[n-1] == "rw") {
		b.readOnly = parts[n-1] == "ro"
		parts = parts[:n-1]
	}
	if len(parts) == 2 {
		b.inside = parts[1]
	}
	if len(parts) > 2 || !filepath.IsAbs(b.source) || !filepath.IsAbs(b.inside) {
		return bind{}, errdefs.Errorf(errdefs.ErrInvalid, "%q is not /PATH, /PATH:/INSIDE or /PATH:/INSIDE:ro", text)
	}
	return b, nil
}
