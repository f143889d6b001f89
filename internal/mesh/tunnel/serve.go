package tunnel

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// ready is what the process says when it serves.
const ready = "ready\n"

// memory bounds what the process takes. WireGuard's buffers are pools without a bound; what [flight] leaves in use of
// them is below it.
const memory = 96 << 20

// Serve is the process of a tunnel, the last three of whose arguments are the name, the socket and the MTU. It
// ends when its interface is deleted. What goes wrong at the start it says on file 3, where who
// started it listens; afterwards it says nothing, for a network that is down would be an error a packet.
func Serve(args []string) error {
	say := os.NewFile(3, "starter")
	if say == nil {
		return errdefs.Errorf(errdefs.ErrInvalid, "tunnel: the daemon starts this, nobody else")
	}
	wait, err := serve(args)
	text := ready
	if err != nil {
		text = err.Error() + "\n"
	}
	_, serr := say.WriteString(text)
	if err = errors.Join(err, serr, say.Close()); err != nil {
		return err
	}
	settled := time.AfterFunc(settle, func() { _ = run.ForgetStart() }) // it goes on with them
	defer settled.Stop()
	<-wait
	return nil
}

// settle is how long the process may still be at its start.
const settle = time.Second

func serve(args []string) (<-chan struct{}, error) {
	if len(args) != 3 {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "tunnel: want a name, a socket and an MTU")
	}
	name, path := args[0], args[1]
	mtu, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "tunnel: MTU %q: not a number", args[2])
	}
	debug.SetMemoryLimit(memory)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	dev, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	mask := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(mask)
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	quiet := func(string, ...any) {}
	out, in := newFlight(), newFlight()
	many, err := inBatches(dev, out, in)
	if err != nil {
		return nil, errors.Join(err, l.Close(), dev.Close())
	}
	d := device.NewDevice(many, newBind(out, in), &device.Logger{Verbosef: quiet, Errorf: quiet})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go d.IpcHandle(c)
		}
	}()
	go func() {
		<-d.Wait()
		_ = l.Close()
	}()
	return d.Wait(), nil
}

// uncut is a bind whose packets are never cut in pieces on the way: one that does not fit is lost, as the
// probes of the path's MTU need it.
type uncut struct {
	*conn.StdNetBind
	out, in *flight
}

func newBind(out, in *flight) conn.Bind {
	if std, ok := conn.NewStdNetBind().(*conn.StdNetBind); ok {
		return uncut{std, out, in}
	}
	return conn.NewDefaultBind()
}

func (b uncut) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := b.StdNetBind.Open(port)
	if err != nil {
		return nil, 0, err
	}
	for i, fn := range fns {
		fns[i] = b.in.receive(fn)
	}
	return fns, actual, keepWhole(actual)
}

func (b uncut) Send(bufs [][]byte, to conn.Endpoint) error {
	err := b.StdNetBind.Send(bufs, to)
	b.out.done(len(bufs))
	return err
}

// keepWhole finds the sockets of the port, which the bind does not show, and has the kernel cut none of their packets.
func keepWhole(port uint16) error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_DGRAM {
			continue
		}
		switch at, _ := unix.Getsockname(fd); at := at.(type) {
		case *unix.SockaddrInet4:
			if at.Port == int(port) {
				err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			}
		case *unix.SockaddrInet6:
			if at.Port == int(port) {
				err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			}
		}
		if err != nil {
			return fmt.Errorf("tunnel: port %d: %w", port, err)
		}
	}
	return nil
}
