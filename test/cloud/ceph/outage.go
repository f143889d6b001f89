package ceph

import "syscall"

// Kill ends all servers of the cluster at once, as a loss of power does. Restart starts them again;
// what they stored is there if the cluster is one of [NewDurable].
func (c *Cluster) Kill() (restart func() error) {
	for _, p := range c.daemons {
		p.Kill()
	}
	c.daemons = nil
	return func() error {
		for _, d := range [][2]string{{"ceph-mon", "a"}, {"ceph-mgr", "x"}, {"ceph-osd", "0"}} {
			if err := c.daemon(d[0], d[1]); err != nil {
				return err
			}
		}
		return nil
	}
}

// Freeze stops all servers of the cluster, as a network that drops everything; thaw lets them go on.
func (c *Cluster) Freeze() (thaw func()) {
	all := c.daemons
	for _, p := range all {
		_ = syscall.Kill(p.Pid(), syscall.SIGSTOP)
	}
	return func() {
		for _, p := range all {
			_ = syscall.Kill(p.Pid(), syscall.SIGCONT)
		}
	}
}
