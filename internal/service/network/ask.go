package network

import (
	"context"
	"encoding/json"

	"github.com/remora-plugins/remora/internal/address"
	"github.com/remora-plugins/remora/internal/cluster/record"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// question is what one host asks of another; one of its fields is set.
type question struct {
	Addresses *address.Request `json:"addresses,omitempty"`
}

// answer is what is answered, or why not.
type answer struct {
	Addresses *address.Answer `json:"addresses,omitempty"`
	Error     string          `json:"error,omitempty"`
	Class     string          `json:"class,omitempty"`
}

// Ask implements [address.Asker].
func (u *up) Ask(ctx context.Context, host record.Host, r address.Request) (address.Answer, error) {
	text, err := json.Marshal(question{Addresses: &r})
	if err != nil {
		return address.Answer{}, err
	}
	select {
	case <-u.opened:
	default:
		return address.Answer{}, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: not reached yet", host.Short())
	}
	text, err = u.cluster.Ask(ctx, host, text)
	if err != nil {
		return address.Answer{}, err
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return address.Answer{}, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: its answer is none: %w", host.Short(), err)
	}
	if a.Error != "" || a.Addresses == nil {
		return address.Answer{}, errdefs.Named(a.Class, errdefs.Errorf(errdefs.ErrUnavailable, "host %s: %s", host.Short(), a.Error))
	}
	return *a.Addresses, nil
}

// answer answers another host.
func (u *up) answer(ctx context.Context, from record.Host, text []byte) []byte {
	var q question
	var a answer
	err := json.Unmarshal(text, &q)
	in := u.in()
	switch {
	case err != nil:
		err = errdefs.As(errdefs.ErrInvalid, err)
	case in == nil:
		err = errdefs.Errorf(errdefs.ErrUnavailable, "not ready yet")
	case q.Addresses == nil:
		err = errdefs.Errorf(errdefs.ErrUnsupported, "this version does not know the question")
	default:
		var given address.Answer
		if given, err = in.alloc.Answer(ctx, from, *q.Addresses); err == nil {
			a.Addresses = &given
		}
	}
	if err != nil {
		a.Error, a.Class = errdefs.OneLine(err.Error()), errdefs.Name(err)
	}
	text, err = json.Marshal(a)
	if err != nil { // of plain values it cannot be
		return nil
	}
	return text
}
