package kubeshim

import (
	"bytes"
	"errors"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// protobufMagic begins an object in Kubernetes' envelope of protobuf, in which its newer clients write by default
// (k8s.io/apimachinery/pkg/runtime/serializer/protobuf).
const protobufMagic = "k8s\x00"

// message is how one is read: the fields of it, by number, as generated.proto of k8s.io/api has them. What is in none is
// left out.
type message map[protowire.Number]field

type field struct {
	name     string
	kind     fieldKind
	of       func() message // of a message
	repeated bool
}

type fieldKind int

const (
	textField fieldKind = iota
	numberField
	boolField
	messageField
	tableField // map<string, string>
	timeField
	microTimeField
)

var (
	ownerMessage = message{
		1: {name: "kind"}, 3: {name: "name"}, 4: {name: "uid"}, 5: {name: "apiVersion"}, 6: {name: "controller", kind: boolField}, 7: {name: "blockOwnerDeletion", kind: boolField},
	}
	metaMessage = message{
		1: {name: "name"}, 2: {name: "generateName"}, 3: {name: "namespace"}, 5: {name: "uid"}, 6: {name: "resourceVersion"},
		8: {name: "creationTimestamp", kind: timeField}, 11: {name: "labels", kind: tableField}, 12: {name: "annotations", kind: tableField},
		13: {name: "ownerReferences", kind: messageField, of: func() message { return ownerMessage }, repeated: true}, 14: {name: "finalizers", repeated: true},
	}
	leaseSpec = message{
		1: {name: "holderIdentity"}, 2: {name: "leaseDurationSeconds", kind: numberField}, 3: {name: "acquireTime", kind: microTimeField},
		4: {name: "renewTime", kind: microTimeField}, 5: {name: "leaseTransitions", kind: numberField}, 6: {name: "strategy"}, 7: {name: "preferredHolder"},
	}
	allocatable   = message{1: {name: "count", kind: numberField}}
	csiNodeDriver = message{
		1: {name: "name"}, 2: {name: "nodeID"}, 3: {name: "topologyKeys", repeated: true}, 4: {name: "allocatable", kind: messageField, of: func() message { return allocatable }},
	}
	csiNodeSpec = message{1: {name: "drivers", kind: messageField, of: func() message { return csiNodeDriver }, repeated: true}}
	taint       = message{1: {name: "key"}, 2: {name: "value"}, 3: {name: "effect"}, 4: {name: "timeAdded", kind: timeField}}
	nodeSpec    = message{
		1: {name: "podCIDR"}, 3: {name: "providerID"}, 4: {name: "unschedulable", kind: boolField},
		5: {name: "taints", kind: messageField, of: func() message { return taint }, repeated: true}, 7: {name: "podCIDRs", repeated: true},
	}
)

// objectMessage is how an object of a kind is read. The status of a Node is not, as it changes by patches.
func objectMessage(kind string) message {
	spec := map[string]message{"Node": nodeSpec, "CSINode": csiNodeSpec, "Lease": leaseSpec}[kind]
	return message{
		1: {name: "metadata", kind: messageField, of: func() message { return metaMessage }},
		2: {name: "spec", kind: messageField, of: func() message { return spec }},
	}
}

// fromProtobuf reads an object out of its envelope.
func fromProtobuf(data []byte, k key, sub string) (object, error) {
	if sub != "" {
		return nil, failure(http.StatusUnsupportedMediaType, "UnsupportedMediaType",
			"the body of the request was in an unknown format - accepted media types include: application/json", k)
	}
	envelope, err := message{1: {name: "type", kind: messageField, of: func() message {
		return message{1: {name: "apiVersion"}, 2: {name: "kind"}}
	}}, 2: {name: "raw"}}.read(bytes.TrimPrefix(data, []byte(protobufMagic)))
	var o object
	if err == nil {
		o, err = objectMessage(k.r.kind).read([]byte(text(envelope, "raw")))
	}
	if err != nil {
		return nil, badRequest("the object provided is unrecognized: %v", err)
	}
	kind, _ := envelope["type"].(object)
	o["kind"] = text(kind, "kind")
	return o, nil
}

var errProtobuf = errors.New("it is no protobuf of its kind")

func (m message) read(data []byte) (object, error) {
	out := object{}
	for len(data) > 0 {
		number, wire, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, errProtobuf
		}
		data = data[n:]
		f, ok := m[number]
		var raw []byte
		var value uint64
		switch {
		case !ok:
			n = protowire.ConsumeFieldValue(number, wire, data)
		case wire == protowire.VarintType && (f.kind == numberField || f.kind == boolField):
			value, n = protowire.ConsumeVarint(data)
		case wire == protowire.BytesType && f.kind != numberField && f.kind != boolField:
			raw, n = protowire.ConsumeBytes(data)
		default:
			return nil, errProtobuf
		}
		if n < 0 {
			return nil, errProtobuf
		}
		data = data[n:]
		if !ok {
			continue
		}
		if err := f.put(out, raw, value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f field) put(out object, raw []byte, value uint64) error {
	var v any
	switch f.kind {
	case textField:
		v = string(raw)
	case numberField:
		v = int64(value) //nolint:gosec // two's complement, as in protobuf
	case boolField:
		v = value != 0
	case messageField:
		o, err := f.of().read(raw)
		if err != nil {
			return err
		}
		v = o
	case tableField:
		pair, err := message{1: {name: "key"}, 2: {name: "value"}}.read(raw)
		if err != nil {
			return err
		}
		table, _ := out[f.name].(object)
		if table == nil {
			table = object{}
		}
		table[text(pair, "key")] = text(pair, "value")
		v = table
	case timeField, microTimeField:
		at, err := message{1: {name: "s", kind: numberField}, 2: {name: "n", kind: numberField}}.read(raw)
		if err != nil {
			return err
		}
		s, _ := at["s"].(int64)
		ns, _ := at["n"].(int64)
		if s == 0 && ns == 0 {
			return nil // the zero time
		}
		layout := time.RFC3339
		if f.kind == microTimeField {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		v = time.Unix(s, ns).UTC().Format(layout)
	}
	if f.repeated {
		list, _ := out[f.name].([]any)
		v = append(list, v)
	}
	out[f.name] = v
	return nil
}
