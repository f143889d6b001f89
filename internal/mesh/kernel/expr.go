package kernel

import (
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/mesh/plan"
)

// exprs are parts of a rule, each of which holds or ends the rule.
type exprs = []expr.Any

func all(parts ...exprs) exprs { return slices.Concat(parts...) }

// linkName is the name of an interface as rules have it.
func linkName(name string) []byte {
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}

const (
	in  = expr.MetaKeyIIFNAME
	out = expr.MetaKeyOIFNAME
)

// link holds for packets of an interface; of a name that ends in "*" the beginning counts.
func link(side expr.MetaKey, op expr.CmpOp, name string) exprs {
	data := []byte(name)
	if n := len(data); data[n-1] == '*' {
		data = data[:n-1]
	} else {
		data = linkName(name)
	}
	return exprs{&expr.Meta{Key: side, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

func isLink(side expr.MetaKey, name string) exprs  { return link(side, expr.CmpOpEq, name) }
func notLink(side expr.MetaKey, name string) exprs { return link(side, expr.CmpOpNeq, name) }

func meta(key expr.MetaKey, value ...byte) exprs {
	return exprs{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

func protocol(p byte) exprs { return meta(expr.MetaKeyL4PROTO, p) }

// portOf holds for a port, at its offset in the header.
func portOf(proto byte, offset uint32, n uint16) exprs {
	return append(protocol(proto),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(n)})
}

func sourcePort(n uint16) exprs { return portOf(unix.IPPROTO_UDP, 0, n) }
func destPort(n uint16) exprs   { return portOf(unix.IPPROTO_UDP, 2, n) }

// redirect6 is the message of ICMPv6 by which a router tells of a better way.
const redirect6 = 137

func icmpType(t byte) exprs {
	return exprs{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{t}},
	}
}

// answers holds for packets of what somebody of ours began.
func answers() exprs {
	return exprs{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// syn holds for the packets with which a connection of TCP begins.
func syn() exprs {
	return append(protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x06}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x02}})
}

// lowerMSS has the other side send no larger pieces than the register says.
func lowerMSS() expr.Any {
	return &expr.Exthdr{SourceRegister: 1, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}
}

// clampMSS has TCP send no more than fits the route, both ways, where a router below swallows what tells so.
func clampMSS() exprs {
	return append(syn(),
		&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 2, Size: 2},
		lowerMSS())
}

// leastMSS has TCP over IPv6 send what the narrowest path carries. A route of IPv6 cannot say that.
func leastMSS() exprs {
	return append(syn(), &expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(plan.Floor - 60)}, lowerMSS())
}

func verdict(kind expr.VerdictKind, chain string) exprs {
	return exprs{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() exprs            { return verdict(expr.VerdictAccept, "") }
func drop() exprs              { return verdict(expr.VerdictDrop, "") }
func jump(chain string) exprs  { return verdict(expr.VerdictGoto, chain) }
func untracked() exprs         { return exprs{&expr.Notrack{}} }
func counted(rule exprs) exprs { return append(exprs{&expr.Counter{}}, rule...) }

// ours are the names of all interfaces of ours.
const ours = plan.Prefix + "*"
