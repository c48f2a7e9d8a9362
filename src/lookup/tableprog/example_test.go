package tableprog_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"opensmtpd/src/lookup/tableprog"
)

// phoneBook is a whole table program: it knows the mailboxes of a few people,
// and who may send as whom.
type phoneBook map[string]string

// Lookup implements tableprog.Table.
func (p phoneBook) Lookup(_ context.Context, s tableprog.Service, key string) (string, bool, error) {
	mailbox, found := p[key]
	if !found {
		return "", false, nil
	}
	switch s {
	case tableprog.Alias:
		return mailbox, true, nil
	case tableprog.MailAddrMap:
		return key + "@example.org", true, nil
	}
	return "", false, fmt.Errorf("%s is not registered", s)
}

// Example is what main does. Here the standard input is a text; smtpd gives the
// program a socket, and it runs until that is closed.
func Example() {
	stdin := strings.NewReader(`config|smtpd-version|7.8.0
config|protocol|0.1
config|tablename|people
config|ready
table|0.1|1713795082.354255|people|lookup|alias|0000002a|joe
`)
	people := phoneBook{"joe": "jbloggs", "jack": "jack"}
	err := tableprog.Serve(context.Background(), stdin, os.Stdout, people, tableprog.Alias, tableprog.MailAddrMap)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	// Output:
	// register|alias
	// register|mailaddrmap
	// register|ready
	// lookup-result|0000002a|found|jbloggs
}
