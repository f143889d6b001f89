package kubeshim

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/state"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Config is what the API of a pool is made of.
type Config struct {
	Options
	// Dir is a directory of its own, which outlives a reboot.
	Dir string
	// Node is the name of the node.
	Node string
	// Read returns what a reference to a secret stands for.
	Read func(ref string) (string, error)
	Log  *slog.Logger
}

// Shim is the API of one pool.
type Shim struct {
	c       Config
	id      identity
	store   *store
	server  *http.Server
	served  chan struct{}
	closing chan struct{}
	close   sync.Once
}

// Start starts the API. A driver that was given one before finds it where it was, unless somebody else has its port.
func Start(ctx context.Context, c Config) (*Shim, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Shim{c: c, store: newStore(), served: make(chan struct{}), closing: make(chan struct{})}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, state.Classify(err)
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, state.Classify(err)
	}
	defer root.Close()
	if s.id, err = loadIdentity(root); err != nil {
		return nil, fmt.Errorf("kubeshim: %w", err)
	}
	cert, err := s.id.certificate()
	if err != nil {
		return nil, fmt.Errorf("kubeshim: %w", err)
	}
	ln, err := listen(ctx, s.id.Port)
	if err != nil {
		return nil, fmt.Errorf("kubeshim: %w", err)
	}
	addr, _ := ln.Addr().(*net.TCPAddr)
	s.id.Port = addr.Port
	if err := s.id.save(root); err != nil {
		return nil, errors.Join(fmt.Errorf("kubeshim: %w", err), ln.Close())
	}
	if err := s.fill(); err != nil {
		return nil, errors.Join(fmt.Errorf("kubeshim: %w", err), ln.Close())
	}
	s.server = &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}
	go func() {
		defer close(s.served)
		if err := s.server.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			c.Log.Error("the Kubernetes API of a CSI driver ended", slog.String("error", err.Error()))
		}
	}()
	return s, nil
}

func listen(ctx context.Context, port int) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if port != 0 && errors.Is(err, unix.EADDRINUSE) {
		return lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	}
	return ln, err
}

// fill makes the objects that are there from the start.
func (s *Shim) fill() error {
	node := s.c.node()
	own := s.c.Node
	put := func(k key, o object) {
		_, _ = s.store.put(k, func(object) (object, error) { return o, nil }) // there is room, and nothing to refuse
	}
	put(key{find("", "v1", "nodes"), "", own}, node)
	put(key{find("storage.k8s.io", "v1", "csinodes"), "", own}, object{
		"metadata": object{"ownerReferences": []any{object{"apiVersion": "v1", "kind": "Node", "name": own, "uid": meta(node)["uid"]}}},
		"spec":     object{"drivers": []any{}},
	})
	// A file that is not there yet is no reason not to begin: who asks for it is told.
	for _, plural := range []string{"secrets", "configmaps"} {
		if err := s.refresh(key{r: find("", "v1", plural)}); err != nil {
			s.c.Log.Warn("what a CSI driver may ask of its Kubernetes API cannot be read", slog.String("error", err.Error()))
		}
	}
	return nil
}

// refresh reads what is in files again, for what is made of files: one object, or all of a resource.
func (s *Shim) refresh(of key) error {
	r := of.r
	var table map[string]string
	switch r.kind {
	case "Secret":
		table = s.c.SecretData
	case "ConfigMap":
		table = s.c.ConfigMaps
	default:
		return nil
	}
	objects, lost := map[key]object{}, map[key]bool{}
	var failed []error
	for _, at := range slices.Sorted(maps.Keys(table)) {
		namespace, name, field, _ := parts(at)
		k := key{r, namespace, name}
		if of.name != "" && k != of {
			continue
		}
		value, err := s.value(r, table[at])
		if err != nil {
			failed = append(failed, fmt.Errorf("%s %s: %w", r.singular, at, err))
			lost[k] = true
			continue
		}
		if objects[k] == nil {
			objects[k] = object{"data": object{}, "metadata": object{}}
			if r.kind == "Secret" {
				objects[k]["type"] = "Opaque"
			}
		}
		data, _ := objects[k]["data"].(object)
		data[field] = value
	}
	for k, o := range objects {
		if lost[k] {
			continue // half of it would be worse than what it was
		}
		if old, err := s.store.get(k); err == nil && reflect.DeepEqual(old["data"], o["data"]) {
			continue
		}
		if _, err := s.store.put(k, func(object) (object, error) { return o, nil }); err != nil {
			return err
		}
	}
	return errdefs.Join(failed...)
}

func (s *Shim) value(r *resource, ref string) (string, error) {
	if r.kind == "Secret" {
		text, err := s.c.Read(ref)
		return base64.StdEncoding.EncodeToString([]byte(text)), err
	}
	if name, ok := strings.CutPrefix(ref, "file:"); ok && filepath.IsAbs(name) {
		data, err := os.ReadFile(name)
		return string(data), err
	}
	return ref, nil
}

// Env is what tells client libraries where the API is.
func (s *Shim) Env() []string {
	return []string{
		"KUBERNETES_SERVICE_HOST=127.0.0.1", "KUBERNETES_SERVICE_PORT=" + strconv.Itoa(s.id.Port),
		"KUBE_NODE_NAME=" + s.c.Node, "NODE_NAME=" + s.c.Node, "POD_NAMESPACE=default", "POD_NAME=remora-" + s.c.Node,
	}
}

// Account is the directory that a driver wants at [Inside], with token, ca.crt and namespace, and a kubeconfig.
func (s *Shim) Account() string { return filepath.Join(s.c.Dir, accountDir) }

// Close ends the API. A driver that goes on asks in vain until there is one again.
func (s *Shim) Close() error {
	s.close.Do(func() { close(s.closing) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) //nolint:forbidigo // it is the end of all that has a context
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	<-s.served
	return err
}
