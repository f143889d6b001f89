package kubeshim

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

// Options are the keys of a pool that say what is in the API. They are embedded in the pool's own.
type Options struct {
	Shim        bool              `opt:"kubeshim" default:"false" help:"whether the CSI driver is given a small Kubernetes API with this host as its only node, for drivers that do not start without one"`
	Labels      map[string]string `opt:"kube_labels" help:"labels of the node in that API, such as { \"topology.kubernetes.io/zone\" = \"a\" }"`
	Annotations map[string]string `opt:"kube_annotations" help:"annotations of the node"`
	ProviderID  string            `opt:"kube_provider_id" help:"what the node's cloud calls it, such as azure:///subscriptions/…"`
	SecretData  map[string]string `opt:"kube_secrets" help:"secrets in that API, each NAMESPACE/NAME/KEY with file:/PATH, which only its owner may read, or env:VARIABLE"`
	ConfigMaps  map[string]string `opt:"kube_config_maps" help:"config maps in that API, each NAMESPACE/NAME/KEY with a text, or the file that has it as file:/PATH"`
}

// Check refuses keys that cannot be meant.
func (k Options) Check() error {
	bad := func(key, format string, args ...any) error {
		return errdefs.Errorf(errdefs.ErrInvalid, "key %q: "+format, append([]any{key}, args...)...)
	}
	tables := map[string]map[string]string{"kube_labels": k.Labels, "kube_annotations": k.Annotations, "kube_secrets": k.SecretData, "kube_config_maps": k.ConfigMaps}
	for _, key := range slices.Sorted(maps.Keys(tables)) {
		if len(tables[key]) > 0 && !k.Shim {
			return bad(key, "it is of no use without kubeshim = true")
		}
	}
	for _, key := range []string{"kube_labels", "kube_annotations"} {
		for _, name := range slices.Sorted(maps.Keys(tables[key])) {
			if !isLabel(name) {
				return bad(key, "%q is not the name of a label, such as topology.kubernetes.io/zone", name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.Labels)) {
		if v := k.Labels[name]; v != "" && !isValue(v) {
			return bad("kube_labels", "%s: %q is not a label's value: up to 63 letters, digits, dashes, dots and underscores", name, v)
		}
	}
	for _, key := range []string{"kube_secrets", "kube_config_maps"} {
		for _, name := range slices.Sorted(maps.Keys(tables[key])) {
			if _, _, _, ok := parts(name); !ok {
				return bad(key, "%q is not NAMESPACE/NAME/KEY", name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.SecretData)) {
		if ref := k.SecretData[name]; !strings.HasPrefix(ref, "file:/") && !strings.HasPrefix(ref, "env:") {
			// The text may be the secret itself, and is not shown.
			return errdefs.Hint(bad("kube_secrets", "%s: the value (not shown) is no reference to a secret", name), "write file:/PATH of a file with mode 0600, or env:VARIABLE")
		}
	}
	return nil
}

var (
	// Their lengths are looked at apart: counted repetitions are programs of hundreds of steps.
	wordForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	keyForm  = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
)

// longest is how many characters a name in the API may have.
const longest = 253

func isName(s string) bool  { return len(s) <= longest && nameForm.MatchString(s) }
func isValue(s string) bool { return len(s) <= 63 && wordForm.MatchString(s) }

// isLabel reports whether it may name a label: [DOMAIN/]WORD.
func isLabel(s string) bool {
	domain, word, ok := strings.Cut(s, "/")
	return ok && isName(domain) && isValue(word) || !ok && isValue(domain)
}

// parts takes NAMESPACE/NAME/KEY apart.
func parts(text string) (namespace, name, key string, ok bool) {
	p := strings.Split(text, "/")
	if len(p) != 3 || !isName(p[0]) || !isName(p[1]) || !keyForm.MatchString(p[2]) || len(p[2]) > longest {
		return "", "", "", false
	}
	return p[0], p[1], p[2], true
}
