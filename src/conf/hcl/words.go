package hcl

import (
	"maps"
	"slices"

	"opensmtpd/src/conf"
)

// Words returns the names of all blocks, settings and functions, and the values
// that settings can have, sorted: what the manual must mention.
func Words() []string {
	all := make(map[string]bool)
	add := func(words ...string) {
		for _, w := range words {
			all[w] = true
		}
	}
	add(statementWords()...)
	add(conf.MethodWords...)
	add(condWords...)
	add(phaseWords...)
	add(decisionWords...)
	add(formWords...)
	add(conditionFunctions...)
	add(slices.Collect(maps.Keys(new(parser).functionTable()))...)
	addFields(add, listenFields())
	addFields(add, relayFields())
	addFields(add, matchFields())
	addFields(add, procFields("command", new(conf.Node)))
	for _, m := range methods {
		addFields(add, localFields(m))
	}
	for _, k := range slices.Concat(fromKinds, forKinds) {
		add(k.word)
	}
	for _, l := range [][]conf.Limit{conf.MDALimits(), conf.MTALimits(), conf.SMTPLimits(), conf.SchedulerLimits()} {
		add(conf.Keys(l)...)
	}
	add("source", "list", "map", "cert", "key", "dhe", "none", "legacy", "auto", "limit", "warn-interval",
		"compression", "encryption", "stdin", "ttl", "max-message-size", "sub-addr-delim", "max-deferred",
		"key-backup", "inet4", "inet6", "offer", "require", "smtps", "optional", "local")
	return slices.Sorted(maps.Keys(all))
}

func addFields[T any](add func(...string), fields []field[T]) {
	for _, f := range fields {
		add(f.word)
	}
}
