package sshfs

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// source is a directory on a server.
type source struct {
	user, host, path string
	port             int64
}

// parseSource reads "user@host:/path" as sshfs does. The user may be missing, the path is
// relative to the user's home unless it begins with a slash, and an address of IPv6 stands
// in brackets.
func parseSource(text string) (source, error) {
	wrong := func(why string) (source, error) {
		return source{}, errdefs.Errorf(errdefs.ErrInvalid, "%q %s; write user@host:/path", text, why)
	}
	var s source
	if strings.ContainsFunc(text, isControl) {
		return wrong("has a control character in it")
	}
	rest := text
	// The host ends at the first colon outside of brackets; what is before an "@" in that
	// part is the user.
	end := strings.IndexByte(rest, ':')
	if open := strings.IndexByte(rest, '['); open >= 0 && open < end {
		shut := strings.IndexByte(rest, ']')
		if shut < 0 || !strings.HasPrefix(rest[shut+1:], ":") {
			return wrong("has no end of its address")
		}
		end = shut + 1
	}
	if end < 0 {
		return wrong("has no colon before the path")
	}
	s.host, s.path = rest[:end], rest[end+1:]
	if i := strings.LastIndexByte(s.host, '@'); i >= 0 {
		s.user, s.host = s.host[:i], s.host[i+1:]
		if s.user == "" {
			return wrong("has no user before the @")
		}
	}
	s.host = strings.TrimSuffix(strings.TrimPrefix(s.host, "["), "]")
	switch {
	case s.host == "":
		return wrong("has no host")
	case strings.HasPrefix(s.host, "-"), strings.HasPrefix(s.user, "-"):
		return wrong("has a name that begins with a dash")
	case strings.ContainsAny(s.user+s.host, " \t\"'`$\\;&|<>(){}*?!/,%#"):
		return wrong("has a character in user or host that has no place there")
	}
	return s, nil
}

// String returns it as sshfs takes it.
func (s source) String() string {
	host := s.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if s.user != "" {
		host = s.user + "@" + host
	}
	return host + ":" + s.path
}

// server names the server for people.
func (s source) server() string {
	if s.port == 22 {
		return s.host
	}
	return s.lookup()
}

// lookup is what the server is called in a file of host keys (sshd(8), SSH_KNOWN_HOSTS FILE
// FORMAT).
func (s source) lookup() string {
	if s.port == 22 {
		return s.host
	}
	return fmt.Sprintf("[%s]:%d", s.host, s.port)
}

// knownHost makes the line of a file of host keys of a key that was given as "type key",
// or as a whole line such as ssh-keyscan(1) prints.
func knownHost(s source, key string) (string, error) {
	fields := strings.Fields(key)
	for i := range min(len(fields), 2) {
		if !isKeyType(fields[i]) || len(fields) < i+2 {
			continue
		}
		if blob, err := base64.StdEncoding.DecodeString(fields[i+1]); err != nil || !strings.Contains(string(blob), fields[i]) {
			break
		}
		return s.lookup() + " " + fields[i] + " " + fields[i+1] + "\n", nil
	}
	return "", errdefs.Errorf(errdefs.ErrInvalid, "not a public key, such as the line that %q prints", s.keyscan())
}

func isKeyType(word string) bool {
	return strings.HasPrefix(word, "ssh-") || strings.HasPrefix(word, "ecdsa-sha2-") || strings.HasPrefix(word, "sk-")
}

// keyscan is the command that asks the server for its keys.
func (s source) keyscan() string {
	if s.port == 22 {
		return "ssh-keyscan " + s.host
	}
	return fmt.Sprintf("ssh-keyscan -p %d %s", s.port, s.host)
}
