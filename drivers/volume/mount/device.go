package mount

import (
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// A parser checks what a device looks like, and returns the addresses of its servers with
// their ports, if it names any.
type parser func(device string) (servers []string, err error)

func wrong(device, form string) error {
	return errdefs.Errorf(errdefs.ErrInvalid, "%q is not %s", device, form)
}

// badHost tells whether a name could be taken for an option or for several.
func badHost(host string) bool {
	return host == "" || strings.HasPrefix(host, "-") || strings.ContainsAny(host, " \t\"'`$\\;&|<>(){}*?!,%#@/")
}

// parseHostPath reads "host:/path", as NFS and GlusterFS have it, with an address of IPv6 in
// brackets.
func parseHostPath(port, form string, wantSlash bool) parser {
	return func(device string) ([]string, error) {
		host, path, ok := strings.Cut(device, ":")
		if strings.HasPrefix(device, "[") {
			host, path, ok = strings.Cut(device[1:], "]:")
		}
		if !ok || badHost(host) || path == "" || wantSlash && path[0] != '/' || path[0] == '-' {
			return nil, wrong(device, form)
		}
		return []string{net.JoinHostPort(host, port)}, nil
	}
}

// withAddress puts the address that Docker's driver local wants beside into the device.
func withAddress(device, addr string) (string, error) {
	if badHost(addr) {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "option \"addr\": %q is not the name or address of a server", addr)
	}
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	host, path, ok := strings.Cut(device, ":/")
	if !ok {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "option \"device\": %q is not :/path", device)
	}
	if host != "" && host != addr {
		return "", errdefs.Errorf(errdefs.ErrInvalid, "option \"addr\": the device names the server %q already", host)
	}
	return addr + ":/" + path, nil
}

// parseShare reads "//server/share", or with backslashes.
func parseShare(device string) ([]string, error) {
	rest, ok := strings.CutPrefix(strings.ReplaceAll(device, `\`, "/"), "//")
	host, share, _ := strings.Cut(rest, "/")
	if !ok || badHost(host) || strings.Trim(share, "/") == "" {
		return nil, wrong(device, "//server/share")
	}
	return []string{net.JoinHostPort(strings.Trim(host, "[]"), "445")}, nil
}

// parseCeph reads "host,host:port:/path", or "user@fsid.fs=/path", which names no monitor.
func parseCeph(device string) ([]string, error) {
	if hosts, path, ok := strings.Cut(device, "="); ok && strings.Contains(hosts, "@") {
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(device, "-") || strings.ContainsAny(hosts, " ,") {
			return nil, wrong(device, "user@fsid.fs=/path")
		}
		return nil, nil
	}
	hosts, _, ok := strings.Cut(device, ":/")
	if !ok {
		return nil, wrong(device, "monitor,monitor:/path")
	}
	var servers []string
	for host := range strings.SplitSeq(hosts, ",") {
		name, _, err := net.SplitHostPort(host)
		if err == nil {
			servers = append(servers, host)
		} else {
			name = strings.Trim(host, "[]")
			servers = append(servers, net.JoinHostPort(name, "3300"), net.JoinHostPort(name, "6789"))
		}
		if badHost(name) {
			return nil, wrong(device, "monitor,monitor:/path")
		}
	}
	return servers, nil
}

// parseURL reads a URL without a password.
func parseURL(text string) ([]string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || badHost(u.Hostname()) || strings.ContainsAny(text, " \"\\") {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "it is not http://server/path or https://server/path")
	}
	if u.User != nil {
		return nil, errdefs.Errorf(errdefs.ErrInvalid, "there is a user in the URL; it goes into \"username\", and a password into \"password\"")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return []string{net.JoinHostPort(u.Hostname(), port)}, nil
}

// parseBucket reads "bucket" or "bucket:/path".
func parseBucket(device string) ([]string, error) {
	bucket, path, ok := strings.Cut(device, ":")
	if badHost(bucket) || ok && !strings.HasPrefix(path, "/") || strings.Contains(path, ",") {
		return nil, wrong(device, "bucket or bucket:/path")
	}
	return nil, nil
}

// parseRemote reads "remote:path", and ":backend:path" where there is no file of remotes.
// What rclone could be told between is not taken, as a password may be in it.
func parseRemote(device string) ([]string, error) {
	name, path, ok := strings.Cut(strings.TrimPrefix(device, ":"), ":")
	if !ok || badHost(name) || strings.HasPrefix(path, "-") {
		return nil, wrong(shortRemote(device), "remote:path or :backend:path")
	}
	if backend := backendOf(device); strings.HasPrefix(device, ":") {
		if _, known := backends[backend]; !known {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "backend %q can only come from a file of rclone's (there are: %s)", backend, strings.Join(backendNames(), ", "))
		}
	}
	return nil, nil
}

// shortRemote drops what may hide a password.
func shortRemote(device string) string {
	short, _, cut := strings.Cut(device, ",")
	if cut {
		short += ",…"
	}
	return short
}

// backendOf returns the backend of ":backend:path", "" for a remote of a file.
func backendOf(device string) string {
	rest, ok := strings.CutPrefix(device, ":")
	if !ok {
		return ""
	}
	backend, _, _ := strings.Cut(rest, ":")
	return backend
}

func parseBlock(device string) ([]string, error) {
	if !filepath.IsAbs(device) {
		return nil, wrong(device, "the absolute path of a block device")
	}
	return nil, nil
}

func parseAny(device string) ([]string, error) {
	if strings.HasPrefix(device, "-") || strings.Contains(device, "/") {
		return nil, wrong(device, "a name")
	}
	return nil, nil
}

// Ways in which a directory of a volume lies below the pool's device.

func below(device, name string) string { return strings.TrimRight(device, "/") + "/" + name }

func belowBucket(device, name string) string {
	if !strings.Contains(device, ":") {
		device += ":"
	}
	return below(device, name)
}

func belowRemote(device, name string) string {
	if strings.HasSuffix(device, ":") {
		return device + name
	}
	return below(device, name)
}
