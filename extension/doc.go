// Package extension is the contract between a VM extension and Azure's guest
// agent: what the guest agent leaves for a handler's command (environment,
// sequence number, settings) and what it reads afterwards (exit code, status,
// events). It knows nothing of the product.
//
// Its vocabulary is that of Azure's Go packages for extensions. What those
// leave to an openssl child process, opening the protected settings, is done
// here in Go.
//
// Five rules hold for every command that goes through Execute:
//
//   - A terminal status stands whenever the sequence number is known, whatever
//     way the command ended: return, error, panic, deadline or signal.
//   - Only enable needs a sequence number. The guest agent gives 0 to
//     uninstall, and to the old version's disable the number of settings that
//     only the new version has, so disable, update and uninstall read none.
//   - A command ends before the guest agent would kill it.
//   - Protected settings are a secret.Secret from the moment they are opened,
//     and no error holds any part of the settings.
//   - What is optional (events) never fails what is essential.
package extension
