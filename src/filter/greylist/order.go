package greylist

// An entry is in two orders: of all of its class, and of those of its site.
const (
	inAll = iota
	inSite
	orders
)

// link is the place of an entry in an order.
type link struct{ prev, next *Entry }

// order is entries from the one that is forgotten first. It is a list that needs
// no memory beside the entries, for there are many, and hostile.
type order struct {
	first, last *Entry
	n           int
}

// push puts e at the end; which is the kind of order that o is.
func (o *order) push(which int, e *Entry) {
	e.links[which] = link{prev: o.last}
	if o.last == nil {
		o.first = e
	} else {
		o.last.links[which].next = e
	}
	o.last = e
	o.n++
}

func (o *order) remove(which int, e *Entry) {
	l := e.links[which]
	if l.prev == nil {
		o.first = l.next
	} else {
		l.prev.links[which].next = l.next
	}
	if l.next == nil {
		o.last = l.prev
	} else {
		l.next.links[which].prev = l.prev
	}
	e.links[which] = link{}
	o.n--
}

// all calls f for the entries, which f may remove, until it is false.
func (o *order) all(which int, f func(*Entry) bool) bool {
	for e := o.first; e != nil; {
		next := e.links[which].next
		if !f(e) {
			return false
		}
		e = next
	}
	return true
}
