package runtime

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Plugin is what is to be run.
type Plugin struct {
	// ID is the plugin's ID, which is also that of its container.
	ID string
	// Name is the familiar reference, with its tag, under which it is published.
	Name string
	// Rootfs is the directory with its unpacked file system.
	Rootfs string
	// Propagated is the directory of the host that the plugin has at Config.PropagatedMount;
	// it is made where it is not there. Mounts in it are seen by the host, live as long as the
	// plugin is started, a crash included, and are unmounted by Stop. Its files stay.
	Propagated string
	// Config and Settings are the plugin's own. Nothing of them is changed.
	Config   plugin.Config
	Settings plugin.Settings
	// Secrets are variables of the environment whose value is what is in a file, without the
	// newline at its end: name to absolute path, or to env:NAME of the daemon's own environment. The file is read at each start, and nobody but
	// its owner may be able to read it. The value is in the plugin's environment and nowhere else.
	Secrets map[string]string
	// Unpublished leaves it to the caller to publish the plugin, as for one in whose answers there are paths.
	Unpublished bool
	// HonorUser runs the plugin as Config.User says. Engines ignore the field, and there are
	// plugins that carry a value with which they would not work, so without it they run as root.
	HonorUser bool
	Beyond
}

// Beyond is what programs are given that are run like managed plugins and are none, such as drivers of storage. The zero
// value is a managed plugin.
type Beyond struct {
	// Word is what it is called in logs and errors; empty is "plugin".
	Word string
	// Version is any text. Adopt starts anew what runs with another one, and what does not see Shared as the host does.
	Version string
	// Command runs a program of the host, with its arguments, in place of a container. There is no Rootfs then, the
	// sockets are in Runtime.Sockets, and of Config and Settings only the socket's name and Env count.
	Command []string
	// Sockets is where the container has the directory of its sockets; empty is /run/docker/plugins.
	Sockets string
	// Shared are directories of the host that the container has at the same path. What either side mounts there the
	// other sees, and it stays when the container ends, whatever ended it.
	Shared []string
	// Serves keeps the processes that it started and that serve a device to the kernel, such as the daemon of a
	// mounted FUSE file system: they go on when it ends, whatever ended it, until what they serve is unmounted.
	Serves bool
}

// Status is what a plugin does at the moment.
type Status string

// The statuses of a plugin.
const (
	Stopped    Status = "stopped"
	Starting   Status = "starting"
	Running    Status = "running"
	Restarting Status = "restarting" // it ended, and is started again at State.Next
	Stopping   Status = "stopping"
)

// State is how a plugin is.
type State struct {
	ID     string
	Name   string
	Status Status
	// Since is when the status began: for Restarting, when it ended that has not been up since.
	Since time.Time
	// Pid is its first process, 0 where there is none.
	Pid int
	// Restarts is how often it was started again since it last was well for HealthyTime.
	Restarts int
	// Next is when it is started again; zero unless it waits for that.
	Next time.Time
	// Last is how it ended the last time; nil where it never did.
	Last *Exit
	// Error is why the last attempt to start it again failed; empty where it did not.
	Error string
}

// Exit is how a process ended.
type Exit struct {
	Time time.Time
	// Known tells whether Code or Signal say anything. Before Linux 6.15 the status of a
	// process that is not one's own child cannot be had for sure.
	Known  bool
	Code   int
	Signal int
}

func (e Exit) String() string {
	switch {
	case !e.Known:
		return "unknown exit status"
	case e.Signal != 0:
		return fmt.Sprintf("signal %d", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

var idForm = regexp.MustCompile(`^[a-zA-Z0-9]{1,64}$`)

func checkID(id string) error {
	if !idForm.MatchString(id) {
		return errdefs.Errorf(errdefs.ErrInvalid, "plugin ID %q: not letters and digits", id)
	}
	return nil
}

// check refuses what could not be started, or would leave the directories that are its own.
func (p *Plugin) check() error {
	bad := func(format string, args ...any) error {
		return errdefs.Errorf(errdefs.ErrInvalid, p.word()+" %q: "+format, append([]any{p.Name}, args...)...)
	}
	if err := checkID(p.ID); err != nil {
		return err
	}
	socket := p.Config.Interface.Socket
	if len(p.Command) > 0 {
		if !filepath.IsAbs(p.Command[0]) {
			return bad("command %q: not an absolute path", p.Command[0])
		}
	}
	for _, dir := range append([]string{cmp.Or(p.Beyond.Sockets, socketsDir)}, p.Shared...) {
		if !filepath.IsAbs(dir) {
			return bad("directory %q: not an absolute path", dir)
		}
	}
	switch {
	case len(p.Command) > 0:
	case !filepath.IsAbs(p.Rootfs):
		return bad("rootfs %q: not an absolute path", p.Rootfs)
	case len(p.Config.Entrypoint)+len(p.Settings.Args) == 0:
		return bad("its config.json has no entrypoint")
	}
	switch {
	case socket == "":
		return bad("its config.json names no interface.socket")
	case socket != filepath.Base(socket) || socket == "." || socket == "..":
		return bad("interface.socket %q: not the name of a file", socket)
	case p.Config.PropagatedMount != "" && !filepath.IsAbs(p.Config.PropagatedMount):
		return bad("propagatedMount %q: not an absolute path", p.Config.PropagatedMount)
	case p.Config.PropagatedMount != "" && !filepath.IsAbs(p.Propagated):
		return bad("directory %q for its propagated mount: not an absolute path", p.Propagated)
	}
	for name, file := range p.Secrets {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return bad("secret %q: not the name of a variable", name)
		}
		if !filepath.IsAbs(file) && !strings.HasPrefix(file, envSecret) {
			return bad("secret %q: file %q: not an absolute path", name, file)
		}
	}
	return nil
}

// errorf puts the plugin's name in front.
func (p *Plugin) errorf(format string, args ...any) error {
	return fmt.Errorf(p.word()+" %q: "+format, append([]any{p.Name}, args...)...)
}

func (p *Plugin) word() string { return cmp.Or(p.Word, "plugin") }
