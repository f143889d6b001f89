package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const networkPassword = "correct horse battery staple"

// member is a daemon of Remora on a host, and what an engine would be to it.
type member struct {
	host
	node *node

	pool  string // of the network, as the address driver named it
	id    string // of the network
	boxes int
}

// member starts a daemon in a host, until the end of the part; fast is whether it has the fast path.
func (s *networkSuite) member(n *node, fast bool) (*member, error) {
	m := &member{node: n}
	m.name, m.dir = remora, filepath.Join(s.dir, n.ns)
	m.socket, m.log, m.config = m.dir+"/plugins/remora.sock", m.dir+"/log", m.dir+"/remora.toml"
	config := fmt.Sprintf("version = 1\nplugin_dir = %q\nrun_dir = %q\nstate_dir = %q\n[engine]\nsockets = [\"none\"]\n[network]\nfast_path = %v\n", m.dir+"/plugins", m.dir+"/run", m.dir+"/state", fast)
	if err := errors.Join(os.MkdirAll(m.dir+"/plugins", 0o755), os.WriteFile(m.config, []byte(config), 0o600)); err != nil {
		return nil, err
	}
	control := m.dir + "/run/control.sock"
	m.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", control)
	}}}
	s.undo = append(s.undo, func() error {
		m.client.CloseIdleConnections()
		err := m.stop()
		m.noTunnel()
		return err
	})
	return m, m.up()
}

// up starts the daemon and waits until it serves.
func (m *member) up() error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	m.cmd = m.node.command(context.WithoutCancel(m.node.s.ctx), m.node.s.remora, "daemon", "--config", m.config)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.ended = make(chan error, 1)
	go func() { m.ended <- m.cmd.Wait() }()
	return until(30*time.Second, time.Millisecond, func() error {
		resp, err := m.client.Get("http://remora/readyz")
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil
	})
}

// noTunnel takes the tunnel's interface away, with which its process ends.
func (m *member) noTunnel() { _ = m.node.ip("link del rm-wg") } // there may be none

// launch has the host found a cluster, or join that of its peers.
func (m *member) launch(password bool, more map[string]any) error {
	req := map[string]any{"Nickname": m.node.ns, "NoPassword": !password}
	if password {
		req["Password"] = networkPassword
	}
	for k, v := range more {
		req[k] = v
	}
	_, err := m.call("Network.Launch", req)
	return err
}

// networkStatus is what is looked at of a host's status.
type networkStatus struct {
	State string
	Peers []struct {
		Nickname, State, Path, Transport string
		FastPath                         bool
		MTU                              int
		Handshake                        time.Time
		Connections                      []struct{ Nickname, State string }
	}
	Problems []struct{ Text string }
}

func (m *member) status() (st networkStatus, err error) {
	b, err := m.call("Network.Status", struct{}{})
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	return st, err
}

// sees reports whether the host is connected to all of others.
func (m *member) sees(others ...*member) error {
	st, err := m.status()
	if err != nil {
		return err
	}
	reachable := map[string]bool{}
	for _, p := range st.Peers {
		reachable[p.Nickname] = p.State == "reachable"
	}
	for _, o := range others {
		if !reachable[o.node.ns] {
			return fmt.Errorf("%s does not reach %s: %+v", m.node.ns, o.node.ns, st)
		}
	}
	return nil
}

// plugin calls the plugin as an engine does.
func (m *member) plugin(method string, request, answer any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	c, err := dial(m.socket)
	if err != nil {
		return err
	}
	defer c.close()
	b, err = c.call(method, b)
	if err == nil && answer != nil {
		err = json.Unmarshal(b, answer)
	}
	return err
}

// attach makes the network "remora" as an engine does: a pool, a gateway, and the network.
func (m *member) attach() error {
	var pool struct{ PoolID, Pool string }
	var gateway struct{ Address string }
	err := m.plugin("IpamDriver.RequestPool", map[string]any{"AddressSpace": "remora", "Options": map[string]string{"net": "remora"}}, &pool)
	if err == nil {
		err = m.plugin("IpamDriver.RequestAddress", map[string]any{"PoolID": pool.PoolID, "Options": map[string]string{"RequestAddressType": "com.docker.network.gateway"}}, &gateway)
	}
	if err != nil {
		return err
	}
	m.pool, m.id = pool.PoolID, newID()
	return m.plugin("NetworkDriver.CreateNetwork", map[string]any{
		"NetworkID": m.id, "Options": map[string]any{"com.docker.network.generic": map[string]string{}},
		"IPv4Data": []map[string]string{{"AddressSpace": "remora", "Pool": pool.Pool, "Gateway": gateway.Address}},
	}, nil)
}

// box makes a container's namespace and connects it to the network as an engine does.
func (m *member) box() (n *node, address string, err error) {
	if m.id == "" {
		if err := m.attach(); err != nil {
			return nil, "", err
		}
	}
	m.boxes++
	if n, err = m.node.s.node(fmt.Sprintf("%sc%d", strings.TrimPrefix(m.node.ns, m.node.s.prefix+"-"), m.boxes)); err != nil {
		return nil, "", err
	}
	endpoint := newID()
	var got struct{ Address string }
	var join struct {
		InterfaceName struct{ SrcName string }
	}
	err = m.plugin("IpamDriver.RequestAddress", map[string]any{"PoolID": m.pool}, &got)
	if err == nil {
		err = m.plugin("NetworkDriver.CreateEndpoint", map[string]any{"NetworkID": m.id, "EndpointID": endpoint, "Options": map[string]any{}, "Interface": map[string]string{"Address": got.Address}}, nil)
	}
	if err == nil {
		err = m.plugin("NetworkDriver.Join", map[string]any{"NetworkID": m.id, "EndpointID": endpoint, "SandboxKey": "/run/netns/" + n.ns, "Options": map[string]any{}}, &join)
	}
	if err != nil {
		return nil, "", err
	}
	err = errors.Join(
		m.node.ip(fmt.Sprintf("link set %s netns %s name eth0", join.InterfaceName.SrcName, n.ns)),
		n.all("addr add "+got.Address+" dev eth0", "link set eth0 up"))
	address, _, _ = strings.Cut(got.Address, "/")
	return n, address, err
}

// tunnels are the processes that carry encrypted packets on hosts.
func tunnels(members ...*member) (pids []int) {
	for _, m := range members {
		for pid := range strings.FieldsSeq(said("ip", "netns", "pids", m.node.ns)) {
			line, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if words := strings.Split(string(line), "\x00"); err == nil && slices.Contains(words, "tunnel") {
				var n int
				if _, err := fmt.Sscan(pid, &n); err == nil {
					pids = append(pids, n)
				}
			}
		}
	}
	return pids
}

// until calls ok until it returns nil.
func until(within, pause time.Duration, ok func() error) error {
	for end := time.Now().Add(within); ; time.Sleep(pause) {
		err := ok()
		if err == nil || time.Now().After(end) {
			return err
		}
		if e, is := errors.AsType[*exec.Error](err); is {
			return e
		}
	}
}
