// Package clientgo has Kubernetes' own client ask the small API of package kubeshim what CSI drivers ask. It is a module of
// its own, as the client brings libraries that nothing else here needs.
package clientgo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/retry"

	"github.com/remora-plugins/remora/internal/csi/kubeshim"
)

const node = "host-1"

func start(t *testing.T, dir string, change ...func(*kubeshim.Config)) *kubeshim.Shim {
	t.Helper()
	c := kubeshim.Config{
		Options: kubeshim.Options{
			Shim: true, ProviderID: "azure:///subscriptions/1/vm",
			Labels:      map[string]string{"topology.kubernetes.io/zone": "a", "csi-isilon.dellemc.com/x": "y"},
			Annotations: map[string]string{"note": "of the pool"},
			SecretData:  map[string]string{"isilon/isilon-creds/config": "file:" + dir + "/secret", "isilon/isilon-creds/user": "env:WHO"},
			ConfigMaps:  map[string]string{"vxflexos/params/driver-config-params.yaml": "file:" + dir + "/params", "vxflexos/params/mode": "debug"},
		},
		Dir: dir + "/kube", Node: node,
		Read: func(ref string) (string, error) {
			if name, ok := strings.CutPrefix(ref, "file:"); ok {
				data, err := os.ReadFile(name)
				return string(data), err
			}
			return "admin", nil
		},
	}
	write(t, dir+"/secret", "password: s3cret")
	write(t, dir+"/params", "LOG_LEVEL: debug")
	for _, f := range change {
		f(&c)
	}
	s, err := kubeshim.Start(t.Context(), c)
	noErr(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func write(t *testing.T, name, text string) {
	t.Helper()
	noErr(t, os.WriteFile(name, []byte(text), 0o600))
}

// client is one as a driver makes it that was given the kubeconfig.
func client(t *testing.T, s *kubeshim.Shim) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.Account(), "kubeconfig"))
	noErr(t, err)
	c, err := kubernetes.NewForConfig(config)
	noErr(t, err)
	return c
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// TestInCluster: what a driver is given as in a pod is enough. The library looks at fixed paths, so that the files are read
// as it does, and the variables are its own.
func TestInCluster(t *testing.T) {
	s := start(t, t.TempDir())
	for _, e := range s.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	token, err := os.ReadFile(filepath.Join(s.Account(), "token"))
	noErr(t, err)
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host:        "https://" + os.Getenv("KUBERNETES_SERVICE_HOST") + ":" + os.Getenv("KUBERNETES_SERVICE_PORT"),
		BearerToken: string(token), TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(s.Account(), "ca.crt")},
	})
	noErr(t, err)
	n, err := c.CoreV1().Nodes().Get(t.Context(), os.Getenv("NODE_NAME"), meta.GetOptions{})
	noErr(t, err)
	if n.Name != node || n.UID == "" || n.Labels["topology.kubernetes.io/zone"] != "a" || n.Labels["kubernetes.io/hostname"] != node ||
		n.Annotations["note"] != "of the pool" || n.Spec.ProviderID != "azure:///subscriptions/1/vm" || n.Status.NodeInfo.KernelVersion == "" ||
		n.CreationTimestamp.IsZero() || n.Status.Capacity.Memory().Value() < 1<<20 {
		t.Errorf("the node is %+v", n)
	}
}

func TestDiscovery(t *testing.T) {
	c := client(t, start(t, t.TempDir()))
	v, err := c.Discovery().ServerVersion()
	noErr(t, err)
	if v.Major != "1" || !strings.HasPrefix(v.GitVersion, "v1.") {
		t.Errorf("its version is %+v", v)
	}
	_, lists, err := c.Discovery().ServerGroupsAndResources()
	noErr(t, err)
	var got []string
	for _, l := range lists {
		for _, r := range l.APIResources {
			got = append(got, l.GroupVersion+"/"+r.Name)
		}
	}
	slices.Sort(got)
	want := []string{
		"coordination.k8s.io/v1/leases", "storage.k8s.io/v1/csinodes", "v1/configmaps", "v1/nodes", "v1/nodes/status", "v1/secrets",
	}
	if !slices.Equal(got, want) {
		t.Errorf("there is %q, want %q", got, want)
	}
}

func TestSecretsAndConfigMaps(t *testing.T) {
	dir := t.TempDir()
	c := client(t, start(t, dir))
	secret, err := c.CoreV1().Secrets("isilon").Get(t.Context(), "isilon-creds", meta.GetOptions{})
	noErr(t, err)
	if string(secret.Data["config"]) != "password: s3cret" || string(secret.Data["user"]) != "admin" || secret.Type != core.SecretTypeOpaque {
		t.Errorf("the secret is %+v", secret)
	}
	params, err := c.CoreV1().ConfigMaps("vxflexos").Get(t.Context(), "params", meta.GetOptions{})
	noErr(t, err)
	if params.Data["driver-config-params.yaml"] != "LOG_LEVEL: debug" || params.Data["mode"] != "debug" {
		t.Errorf("the config map is %+v", params)
	}
	// A file that was renewed is read anew, and one that is gone is an error and no empty secret.
	write(t, dir+"/secret", "password: 2")
	secret, err = c.CoreV1().Secrets("isilon").Get(t.Context(), "isilon-creds", meta.GetOptions{})
	if err != nil || string(secret.Data["config"]) != "password: 2" {
		t.Errorf("the renewed secret is %+v, %v", secret, err)
	}
	noErr(t, os.Remove(dir+"/secret"))
	_, err = c.CoreV1().Secrets("isilon").Get(t.Context(), "isilon-creds", meta.GetOptions{})
	if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "isilon/isilon-creds/config") {
		t.Errorf("a secret without its file: %v", err)
	}
	if _, err = c.CoreV1().ConfigMaps("vxflexos").Get(t.Context(), "params", meta.GetOptions{}); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"another namespace": second(c.CoreV1().Secrets("other").Get(t.Context(), "isilon-creds", meta.GetOptions{})),
		"another name":      second(c.CoreV1().Secrets("isilon").Get(t.Context(), "x", meta.GetOptions{})),
		"another node":      second(c.CoreV1().Nodes().Get(t.Context(), "x", meta.GetOptions{})),
		"another resource":  second(c.CoreV1().Pods("default").List(t.Context(), meta.ListOptions{})),
	} {
		if !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = c.CoreV1().Secrets("isilon").Update(t.Context(), &core.Secret{ObjectMeta: meta.ObjectMeta{Name: "isilon-creds"}}, meta.UpdateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a secret was changed: %v", err)
	}
	if err := c.CoreV1().Nodes().Delete(t.Context(), node, meta.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the node was deleted: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestNodeChanges: labels, annotations and taints, in each way in which drivers change them.
func TestNodeChanges(t *testing.T) {
	c := client(t, start(t, t.TempDir()))
	nodes := c.CoreV1().Nodes()
	ctx := t.Context()
	patch := func(kind types.PatchType, text string, sub ...string) *core.Node {
		t.Helper()
		n, err := nodes.Patch(ctx, node, kind, []byte(text), meta.PatchOptions{}, sub...)
		noErr(t, err)
		return n
	}
	patch(types.MergePatchType, `{"metadata":{"labels":{"a":"1","b":"2"},"annotations":{"note":null}}}`)
	patch(types.StrategicMergePatchType, `{"metadata":{"labels":{"b":null,"c":"3"}},"spec":{"taints":[{"key":"k","effect":"NoSchedule"},{"key":"ebs.csi.aws.com/agent-not-ready","effect":"NoExecute"}]}}`)
	n := patch(types.JSONPatchType, `[{"op":"test","path":"/spec/taints/1/key","value":"ebs.csi.aws.com/agent-not-ready"},{"op":"remove","path":"/spec/taints/1"},{"op":"add","path":"/metadata/labels/x~1y","value":"4"}]`)
	if n.Labels["a"] != "1" || n.Labels["c"] != "3" || n.Labels["x/y"] != "4" || n.Labels["kubernetes.io/hostname"] != node {
		t.Errorf("labels are %v", n.Labels)
	}
	if _, ok := n.Labels["b"]; ok || n.Annotations["note"] != "" || len(n.Spec.Taints) != 1 || n.Spec.ProviderID == "" {
		t.Errorf("the node is %+v", n)
	}
	n = patch(types.StrategicMergePatchType, `{"status":{"conditions":[{"type":"Disk","status":"True"}]}}`, "status")
	if len(n.Status.Conditions) != 2 {
		t.Errorf("conditions are %+v", n.Status.Conditions)
	}
	_, err := nodes.Patch(ctx, node, types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/labels/none"}]`), meta.PatchOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("a patch of what is not there: %v", err)
	}
	old := n.DeepCopy()
	noErr(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		n, err := nodes.Get(ctx, node, meta.GetOptions{})
		if err != nil {
			return err
		}
		n.Annotations = map[string]string{"csi.volume.kubernetes.io/nodeid": `{"x":"y"}`}
		_, err = nodes.Update(ctx, n, meta.UpdateOptions{})
		return err
	}))
	if _, err := nodes.Update(ctx, old, meta.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("an update of an old version: %v", err)
	}
	if n, err = nodes.Get(ctx, node, meta.GetOptions{}); err != nil || n.Annotations["csi.volume.kubernetes.io/nodeid"] != `{"x":"y"}` || n.UID != old.UID {
		t.Errorf("the node is %+v, %v", n, err)
	}
	for selector, want := range map[string]int{"a=1": 1, "a!=1": 0, "a in (1,2),c": 1, "!a": 0, "a notin (1)": 0, "kubernetes.io/hostname=" + node: 1} {
		l, err := nodes.List(ctx, meta.ListOptions{LabelSelector: selector})
		if err != nil || len(l.Items) != want {
			t.Errorf("%s finds %d, want %d: %v", selector, len(l.Items), want, err)
		}
	}
}

func TestCSINode(t *testing.T) {
	c := client(t, start(t, t.TempDir()))
	nodes := c.StorageV1().CSINodes()
	n, err := nodes.Get(t.Context(), node, meta.GetOptions{})
	noErr(t, err)
	count := int32(25)
	n.Spec.Drivers = append(n.Spec.Drivers, storage.CSINodeDriver{Name: "d", NodeID: "i-1", Allocatable: &storage.VolumeNodeResources{Count: &count}})
	n, err = nodes.Update(t.Context(), n, meta.UpdateOptions{})
	noErr(t, err)
	n, err = nodes.Patch(t.Context(), node, types.StrategicMergePatchType, []byte(`{"spec":{"drivers":[{"name":"e","nodeID":"2"},{"name":"d","nodeID":"i-2"}]}}`), meta.PatchOptions{})
	noErr(t, err)
	if len(n.Spec.Drivers) != 2 || n.Spec.Drivers[0].NodeID != "i-2" || *n.Spec.Drivers[0].Allocatable.Count != 25 {
		t.Errorf("drivers are %+v", n.Spec.Drivers)
	}
	_, err = nodes.Create(t.Context(), &storage.CSINode{ObjectMeta: meta.ObjectMeta{Name: node}}, meta.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("it was made twice: %v", err)
	}
	noErr(t, nodes.Delete(t.Context(), node, meta.DeleteOptions{}))
	if _, err = nodes.Get(t.Context(), node, meta.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is there still: %v", err)
	}
}

// TestLeader: two drivers elect a leader by a Lease, and the other one follows when it lets go.
func TestLeader(t *testing.T) {
	s := start(t, t.TempDir())
	led := make(chan string, 4)
	elect := func(who string) context.CancelFunc {
		ctx, cancel := context.WithCancel(t.Context())
		lock := &resourcelock.LeaseLock{
			LeaseMeta: meta.ObjectMeta{Name: "external-attacher", Namespace: "default"}, Client: client(t, s).CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: who},
		}
		go leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 4 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 100 * time.Millisecond, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { led <- who }, OnStoppedLeading: func() {}},
		})
		return cancel
	}
	one := elect("one")
	if who := <-led; who != "one" {
		t.Fatalf("%s leads", who)
	}
	two := elect("two")
	defer two()
	select {
	case who := <-led:
		t.Fatalf("%s leads too", who)
	case <-time.After(300 * time.Millisecond):
	}
	one()
	if who := <-led; who != "two" {
		t.Errorf("%s leads", who)
	}
	l, err := client(t, s).CoordinationV1().Leases("").List(t.Context(), meta.ListOptions{})
	if err != nil || len(l.Items) != 1 {
		t.Errorf("leases are %+v, %v", l, err)
	}
}

// TestInformer: a driver that watches sees each change, and those during an absence of the API when it is back.
func TestInformer(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	c := client(t, s)
	factory := informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithTweakListOptions(func(o *meta.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", node).String()
	}))
	informer := factory.Core().V1().Nodes().Informer()
	events := make(chan string, 100)
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { events <- "add" },
		UpdateFunc: func(_, o any) { events <- "label " + o.(*core.Node).Labels["seen"] },
	})
	noErr(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer factory.Shutdown()
	defer cancel()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("it does not come to know what there is")
	}
	wait := func(want string) {
		t.Helper()
		for end := time.After(30 * time.Second); ; {
			select {
			case e := <-events:
				if e == want {
					return
				}
			case <-end:
				t.Fatalf("no %q", want)
			}
		}
	}
	wait("add")
	label := func(v string) {
		t.Helper()
		_, err := c.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(`{"metadata":{"labels":{"seen":"`+v+`"}}}`), meta.PatchOptions{})
		noErr(t, err)
	}
	label("1")
	wait("label 1")
	noErr(t, s.Close())
	s = start(t, dir, func(c *kubeshim.Config) { c.Labels["seen"] = "2" })
	wait("label 2")
	until(t, "an answer", func() bool { _, err := c.Discovery().ServerVersion(); return err == nil })
	label("3")
	wait("label 3")
}

// TestWatchLease: what is made and deleted is seen, from the version on from which it is asked for.
func TestWatchLease(t *testing.T) {
	c := client(t, start(t, t.TempDir()))
	leases := c.CoordinationV1().Leases("default")
	l, err := leases.List(t.Context(), meta.ListOptions{})
	noErr(t, err)
	_, err = leases.Create(t.Context(), &coordination.Lease{ObjectMeta: meta.ObjectMeta{Name: "l"}}, meta.CreateOptions{})
	noErr(t, err)
	noErr(t, leases.Delete(t.Context(), "l", meta.DeleteOptions{}))
	w, err := leases.Watch(t.Context(), meta.ListOptions{ResourceVersion: l.ResourceVersion})
	noErr(t, err)
	defer w.Stop()
	for _, want := range []string{"ADDED", "DELETED"} {
		if e := <-w.ResultChan(); string(e.Type) != want {
			t.Errorf("event %s, want %s", e.Type, want)
		}
	}
	old, err := leases.Watch(t.Context(), meta.ListOptions{ResourceVersion: "1"})
	noErr(t, err)
	defer old.Stop()
	if e := <-old.ResultChan(); string(e.Type) != "ERROR" || !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
		t.Errorf("of long ago: %+v", e)
	}
}

func TestStrangers(t *testing.T) {
	s := start(t, t.TempDir())
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.Account(), "kubeconfig"))
	noErr(t, err)
	config.BearerToken = "x" + config.BearerToken
	c, err := kubernetes.NewForConfig(config)
	noErr(t, err)
	if _, err := c.CoreV1().Secrets("isilon").Get(t.Context(), "isilon-creds", meta.GetOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a stranger reads a secret: %v", err)
	}
	config.BearerToken, config.CAData = "", nil
	if c, err = kubernetes.NewForConfig(config); err == nil {
		_, err = c.Discovery().ServerVersion()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("another certificate is taken: %v", err)
	}
	for name, mode := range map[string]os.FileMode{"token": 0o600, "kubeconfig": 0o600, "../identity.json": 0o600} {
		fi, err := os.Stat(filepath.Join(s.Account(), name))
		if err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

// TestForms: a client may write in protobuf, as newer ones do by default, or in JSON; what cannot be read is refused.
func TestForms(t *testing.T) {
	s := start(t, t.TempDir())
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.Account(), "kubeconfig"))
	noErr(t, err)
	for _, form := range []string{"application/vnd.kubernetes.protobuf", "application/json"} {
		config.ContentType, config.AcceptContentTypes = form, form+",application/json"
		c, err := kubernetes.NewForConfig(config)
		noErr(t, err)
		now, holder, seconds, yes := meta.NowMicro(), "me", int32(15), true
		want := &coordination.Lease{
			ObjectMeta: meta.ObjectMeta{
				Name: "x", Labels: map[string]string{"a": "b", "c": ""}, Annotations: map[string]string{"d": "e"}, Finalizers: []string{"f", "g"},
				OwnerReferences: []meta.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: "u", Controller: &yes}},
			},
			Spec: coordination.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now, LeaseTransitions: &seconds},
		}
		leases := c.CoordinationV1().Leases("default")
		got, err := leases.Create(t.Context(), want, meta.CreateOptions{})
		noErr(t, err)
		noErr(t, leases.Delete(t.Context(), "x", meta.DeleteOptions{}))
		if !got.Spec.RenewTime.Time.Equal(now.Truncate(time.Microsecond)) {
			t.Errorf("%s: it was renewed at %s, not %s", form, got.Spec.RenewTime, now)
		}
		got.UID, got.ResourceVersion, got.Namespace, got.CreationTimestamp = "", "", "", meta.Time{}
		got.Spec.AcquireTime, got.Spec.RenewTime, want.Spec.AcquireTime, want.Spec.RenewTime = nil, nil, nil, nil
		if !reflect.DeepEqual(got.ObjectMeta, want.ObjectMeta) || !reflect.DeepEqual(got.Spec, want.Spec) {
			t.Errorf("%s: it is %+v, want %+v", form, got, want)
		}
		n, err := c.CoreV1().Nodes().Get(t.Context(), node, meta.GetOptions{})
		noErr(t, err)
		n.Spec.Taints = []core.Taint{{Key: "k", Value: "v", Effect: core.TaintEffectNoExecute}}
		after, err := c.CoreV1().Nodes().Update(t.Context(), n, meta.UpdateOptions{})
		noErr(t, err)
		if n.ResourceVersion = after.ResourceVersion; !reflect.DeepEqual(n, after) {
			t.Errorf("%s: the node is %+v, want %+v", form, after, n)
		}
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	c, err := kubernetes.NewForConfig(config)
	noErr(t, err)
	n, err := c.CoreV1().Nodes().Get(t.Context(), node, meta.GetOptions{})
	noErr(t, err)
	_, err = c.CoreV1().Nodes().UpdateStatus(t.Context(), n, meta.UpdateOptions{})
	var refused apierrors.APIStatus
	if !errors.As(err, &refused) || refused.Status().Code != 415 {
		t.Errorf("a status in protobuf was taken: %v", err)
	}
}
