package handler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/openloganalytics/agent/agent"
	"github.com/openloganalytics/agent/extension"
	"github.com/openloganalytics/agent/internal/product"
	"github.com/openloganalytics/agent/internal/secret"
)

// How enable watches the agent after it started it.
const (
	pollEvery = 200 * time.Millisecond
	// reviveEvery lies between two looks whether it runs at all.
	reviveEvery = time.Second
	// settled is how long the agent has to say "unreachable" before enable
	// believes it.
	settled = 20 * time.Second
)

// A verdict is what the agent made of the settings.
type verdict struct {
	health *agent.Health // nil when the agent did not say anything
	err    error         // with its exit code; nil when every workspace is connected
}

// await waits for the agent's verdict on the settings of that generation: at
// once when all workspaces are connected or one refuses, otherwise as long as
// h.Patience.
func (h *Handler) await(ctx context.Context, s *state, x *extension.Invocation) verdict {
	ctx, cancel := context.WithTimeout(ctx, h.Patience)
	defer cancel()
	var last *agent.Health
	var unreachable time.Time
	revive := time.NewTicker(reviveEvery)
	defer revive.Stop()
	for {
		health, err := agent.ReadHealth(h.Layout.HealthFile())
		if err == nil && health.Generation == s.Generation && health.Version == product.Version && !health.Clean && h.wrote(ctx, s, health) {
			last = health
			v := judge(health)
			if v.err == nil && h.keyPending(health) {
				// An older certificate works; what the key is worth is not known yet.
				v.err = extension.WithCode(extension.ExitUnreachable, errKeyPending)
			}
			if v.err == nil || extension.CodeOf(v.err) != extension.ExitUnreachable {
				return v
			}
			switch {
			case !decided(health):
				unreachable = time.Time{}
			case unreachable.IsZero():
				unreachable = x.Now()
			case x.Now().Sub(unreachable) > settled:
				return v
			}
		}
		select {
		case <-ctx.Done():
			if last == nil {
				return verdict{err: fmt.Errorf("the agent did not start within %v; its log is %s", h.Patience, h.agentLog())}
			}
			if v := judge(last); v.err != nil || !h.keyPending(last) {
				return v
			}
			return verdict{last, extension.WithCode(extension.ExitUnreachable, errKeyPending)}
		case <-revive.C:
			h.revive(ctx, s, x)
		case <-time.After(pollEvery):
		}
	}
}

// revive starts an agent that does not run after all: it was found running
// while it came to its end, because a disable that was killed had just told it
// to stop.
func (h *Handler) revive(ctx context.Context, s *state, x *extension.Invocation) {
	u := h.unit(s)
	if now, err := h.Manager.Status(ctx, u); err != nil || now.Running {
		return
	}
	x.Log.Info("the agent has been stopped; start it again")
	if err := h.Manager.Start(ctx, u); err != nil {
		x.Log.Warn("cannot start the agent", "error", err)
	}
}

var errKeyPending = errors.New("the workspace has not answered to the new workspaceKey yet; the agent goes on trying it")

// keyPending reports whether a key still lies there that the agent has not
// had an answer to.
func (h *Handler) keyPending(health *agent.Health) bool {
	for _, w := range health.Workspaces {
		if _, err := os.Lstat(h.Layout.WorkspaceKeyFile(w.ID)); err == nil {
			return true
		}
	}
	return false
}

// wrote reports whether the agent that runs now wrote the health: one that was
// killed leaves its last words behind.
func (h *Handler) wrote(ctx context.Context, s *state, health *agent.Health) bool {
	now, err := h.Manager.Status(ctx, h.unit(s))
	return err == nil && now.Running && now.PID == health.PID
}

// decided reports whether every workspace has given some answer.
func decided(health *agent.Health) bool {
	for _, w := range health.Workspaces {
		if w.State == agent.StateStarting {
			return false
		}
	}
	return true
}

// judge turns health into an error with an exit code: 53 when a workspace
// refuses us, 55 when one cannot be reached (yet).
func judge(health *agent.Health) verdict {
	var refused, unreached []string
	for _, w := range health.Workspaces {
		switch w.State {
		case agent.StateConnected:
		case agent.StateRejected:
			refused = append(refused, sentence("workspace "+w.ID+": "+w.Message))
		default:
			message := w.Message
			if message == "" {
				message = "no answer yet"
			}
			unreached = append(unreached, sentence("workspace "+w.ID+": "+message))
		}
	}
	switch {
	case len(refused) > 0:
		return verdict{health, extension.WithCode(extension.ExitBadSettings, errors.New(strings.Join(append(refused, unreached...), " ")))}
	case len(unreached) > 0:
		return verdict{health, extension.WithCode(extension.ExitUnreachable, errors.New(strings.Join(append(unreached, "The agent keeps collecting and goes on trying."), " ")))}
	}
	return verdict{health: health}
}

// report writes the status of the verdict and returns its error.
func (v verdict) report(x *extension.Invocation, notes []string) error {
	parts := parts(v.health)
	if v.err != nil {
		if err := x.Status.Error(v.err, parts...); err != nil {
			x.Log.Warn("status not written", "error", err)
		}
		return v.err
	}
	if err := x.Status.Success(summary(v.health, notes), parts...); err != nil {
		return err
	}
	return nil
}

// summary is the message of a success.
func summary(health *agent.Health, notes []string) string {
	ids := make([]string, 0, len(health.Workspaces))
	for _, w := range health.Workspaces {
		ids = append(ids, w.ID)
	}
	texts := []string{fmt.Sprintf("Collecting from %d sources to workspace %s.", len(health.Sources), strings.Join(ids, ", "))}
	if text := health.Configuration.Sentence(); text != "" {
		texts = append(texts, text)
	}
	return strings.Join(append(texts, notes...), " ")
}

// parts are the substatuses: one for each workspace, one for who chose the
// sources, one for each source, one for the spool, one for the ledger, and one
// for the ceilings while they are too low or nobody but the agent holds them.
func parts(health *agent.Health) []extension.Substatus {
	if health == nil {
		return nil
	}
	var list []extension.Substatus
	for _, w := range health.Workspaces {
		part := extension.Substatus{Name: "workspace " + w.ID, Status: extension.StatusSuccess, Message: fmt.Sprintf("%d records delivered, %d waiting.", w.Delivered, w.Waiting)}
		if w.Refused > 0 {
			part.Status = extension.StatusWarning
			part.Message += fmt.Sprintf(" %d records were refused and set aside.", w.Refused)
		}
		if late := w.Late(health.Updated); late != "" {
			part.Status = extension.StatusWarning
			part.Message += " " + late + "."
		}
		switch w.State {
		case agent.StateConnected:
		case agent.StateRejected:
			part.Status, part.Code = extension.StatusError, extension.ExitBadSettings
		case agent.StateUnreachable:
			part.Status, part.Code = extension.StatusError, extension.ExitUnreachable
		default:
			part.Status = extension.StatusTransitioning
		}
		if w.Message != "" {
			part.Message = sentence(w.Message) + " " + part.Message
		}
		list = append(list, part)
	}
	if health.Configuration.Origin != "" {
		list = append(list, configuration(&health.Configuration))
	}
	for _, src := range health.Sources {
		part := extension.Substatus{Name: "source " + src.Name, Status: extension.StatusSuccess, Message: fmt.Sprintf("%d records read, %d dropped.", src.Read, src.Dropped)}
		if src.State != agent.SourceRunning || len(src.Troubles) > 0 {
			part.Status = extension.StatusWarning
			part.Message = strings.TrimSpace(src.Message+" "+troubles(src.Troubles)) + " " + part.Message
		}
		list = append(list, part)
	}
	part := extension.Substatus{Name: "spool", Status: extension.StatusSuccess, Message: fmt.Sprintf("%d of %d MB used.", health.Spool.Bytes>>20, health.Spool.Budget>>20)}
	if health.Spool.State != "ok" {
		part.Status, part.Message = extension.StatusWarning, sentence(health.Spool.Message)+" "+part.Message
	}
	if health.Spool.Note != "" {
		part.Message += " " + sentence(health.Spool.Note)
	}
	list = append(list, part, account(health))
	return append(list, limits(health)...)
}

// limits is the substatus of the ceilings, while there is anything to say.
func limits(health *agent.Health) []extension.Substatus {
	l := &health.Limits
	switch {
	case l.Message != "":
		return []extension.Substatus{{Name: "limits", Status: extension.StatusWarning, Message: sentence(l.Message)}}
	case l.Note != "":
		return []extension.Substatus{{Name: "limits", Status: extension.StatusSuccess, Message: sentence(l.Note)}}
	}
	return nil
}

// configuration is the substatus that says who chose the sources. What the
// workspace asks for and does not get is told, and is no fault of the machine.
func configuration(c *agent.ConfigurationHealth) extension.Substatus {
	part := extension.Substatus{Name: "configuration", Status: extension.StatusSuccess, Message: c.Sentence()}
	if c.Problem != "" {
		part.Message += " The configuration of the workspace is not brought up to date: " + sentence(c.Problem)
	}
	for i, text := range c.Unobeyed {
		if i == shownUnobeyed {
			part.Message += fmt.Sprintf(" And %d more.", len(c.Unobeyed)-i)
			break
		}
		part.Message += " No effect: " + sentence(text)
	}
	return part
}

// shownUnobeyed is how many parts of a configuration without effect the status
// names; the guest agent cuts long ones.
const shownUnobeyed = 5

// account is the substatus of the ledger.
func account(health *agent.Health) extension.Substatus {
	part := extension.Substatus{
		Name: "ledger", Status: extension.StatusSuccess,
		Message: fmt.Sprintf("%d records read, %d of them dropped. Every record is accounted for.", health.Ledger.Read, health.Ledger.Dropped),
	}
	if err := health.Conserved(); err != nil {
		part.Status, part.Message = extension.StatusWarning, sentence(err.Error())+" Please report this with a copy of the agent's log."
	}
	return part
}

// sentence ends text with a full stop.
func sentence(text string) string {
	if strings.HasSuffix(text, ".") {
		return text
	}
	return text + "."
}

// keyDigest tells two keys apart and gives nothing of them away: a workspace
// key is 64 random bytes.
func keyDigest(id string, key secret.Secret) string {
	sum := sha256.Sum256([]byte(product.Name + "\x00" + id + "\x00" + key.Reveal()))
	return hex.EncodeToString(sum[:16])
}
