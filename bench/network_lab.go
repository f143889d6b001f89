package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// underlay is the MTU of the wires between hosts.
const underlay = 1500

// node is a network namespace: a host, a container, or what lies between hosts.
type node struct {
	s  *networkSuite
	ns string
}

// node makes a namespace, which goes with the part.
func (s *networkSuite) node(name string) (*node, error) {
	n := &node{s, fmt.Sprintf("%s-%s", s.prefix, name)}
	if err := command("ip", "netns", "add", n.ns); err != nil {
		return nil, err
	}
	s.undo = append(s.undo, func() error { return command("ip", "netns", "del", n.ns) })
	return n, errors.Join(n.ip("link set lo up"), n.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.default.accept_dad=0"))
}

// ip runs the command ip in the namespace.
func (n *node) ip(args string) error {
	return command("ip", append([]string{"-n", n.ns}, strings.Fields(args)...)...)
}

// all runs ip with each line.
func (n *node) all(lines ...string) error {
	for _, l := range lines {
		if err := n.ip(l); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) sysctl(settings ...string) error {
	_, err := n.run("sysctl", append([]string{"-qw"}, settings...)...)
	return err
}

// command is one that runs in the namespace, and as the process that is started.
func (n *node) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + n.ns, name}, args...)...)
}

func (n *node) run(name string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(n.s.ctx, time.Minute)
	defer stop()
	var stderr strings.Builder
	cmd := n.command(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s in %s: %w: %s%.300s", name, n.ns, err, stderr.String(), out)
	}
	return string(out), nil
}

// start runs a program in the namespace until the end of the part, and returns its process ID.
func (n *node) start(name string, args ...string) (pid int, err error) {
	log, err := os.Create(filepath.Join(n.s.dir, n.ns+"."+filepath.Base(name)+".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	cmd := n.command(context.WithoutCancel(n.s.ctx), name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the bench, which ends it last
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	n.s.undo = append(n.s.undo, func() error {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		return nil
	})
	return cmd.Process.Pid, nil
}

// inside does something in the namespace. Sockets that it opens stay there.
func (n *node) inside(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + n.ns)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // this thread is of no use any more
	}
	return err
}

// pair makes two hosts that a wire connects: 10.9.0.1 and 10.9.0.2, or in a subnet each, with the other as the router
// to it, if they are to be apart.
func (s *networkSuite) pair(name string, apart bool) (hosts [2]*node, err error) {
	for i, side := range []string{"a", "b"} {
		if hosts[i], err = s.node(name + side); err != nil {
			return hosts, err
		}
	}
	a, b := hosts[0], hosts[1]
	if err := a.ip(fmt.Sprintf("link add eth0 mtu %d type veth peer name eth0 mtu %[1]d netns %s", underlay, b.ns)); err != nil {
		return hosts, err
	}
	for i, h := range hosts {
		lines := []string{fmt.Sprintf("addr add %s/24 dev eth0", hostAddress(i, apart)), "link set eth0 up"}
		if apart {
			lines = append(lines, fmt.Sprintf("route add %s/32 dev eth0 scope link", hostAddress(1-i, true)),
				fmt.Sprintf("route add default via %s dev eth0", hostAddress(1-i, true)))
		}
		if err := h.all(lines...); err != nil {
			return hosts, err
		}
	}
	return hosts, nil
}

func hostAddress(i int, apart bool) string {
	if apart {
		return fmt.Sprintf("10.9.%d.%d", i+1, i+1)
	}
	return fmt.Sprintf("10.9.0.%d", i+1)
}

// containers makes a namespace behind a bridge on each host, 10.66.1.2 and 10.66.2.2, with so large packets.
func (s *networkSuite) containers(name string, hosts [2]*node, mtu int) (boxes [2]*node, err error) {
	for i, h := range hosts {
		if boxes[i], err = s.node(name + "c" + fmt.Sprint(i)); err != nil {
			return boxes, err
		}
		err = errors.Join(h.all(
			fmt.Sprintf("link add br0 mtu %d type bridge", mtu), fmt.Sprintf("addr add 10.66.%d.1/24 dev br0", i+1), "link set br0 up",
			fmt.Sprintf("link add p0 mtu %d type veth peer name eth0 mtu %[1]d netns %s", mtu, boxes[i].ns), "link set p0 master br0 up"),
			boxes[i].all(fmt.Sprintf("addr add 10.66.%d.2/24 dev eth0", i+1), "link set eth0 up", fmt.Sprintf("route add default via 10.66.%d.1", i+1)))
		if err != nil {
			return boxes, err
		}
	}
	return boxes, nil
}

// offloads says whether super-packets pass the wire of a host whole, as they do from container to container, or
// are cut as a network card without tunnels' offloads cuts them.
func (n *node) offloads(whole bool) error {
	state := map[bool]string{true: "on", false: "off"}[whole]
	_, err := n.run("ethtool", "-K", "eth0", "tso", state, "gso", state, "tx-udp-segmentation", state, "gro", map[bool]string{true: "off", false: "on"}[whole])
	return err
}
