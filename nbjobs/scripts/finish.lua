#!lua flags=allow-oom
-- 5 owner  6 outcome (completed failed paused released retrying)  8 failed 0/1  9 result  10 error  11 d
-- 7 wait_ms; of a release 'ms,ms,ms' by how many there were since the last progress, '' where something else bounds them
-- 12.. a checkpoint; its c is '' where the worker speaks for a child that is gone: then only its events count
local MAX_FRUITLESS = 10         -- releases in a row without progress; the next one pauses the run
local NO_PROGRESS = '{"p":{"reason":"no_progress"}}'
if gone then return answer('GONE') end
if not holds(ARGV[5]) then return answer(run.last_owner == ARGV[5] and 'AGAIN' or 'FENCED') end
local new = checkpoint(12)
local refusal = larger(9, MAX_RESULT) or larger(10, MAX_ERROR) or larger(11, MAX_EVENT) or oversize(new)
if refusal then return refusal end
if new.c ~= '' and num(new.c) ~= num(run.c) + 1 then return answer('ORDER') end

if new.c == '' then add_events(new) else apply(new) end
put('last_owner', run.owner)
put('owner', '')
add('failures', num(ARGV[8]))

-- A body that ended by itself has ended; all other outcomes yield to what was asked meanwhile.
local state, event, time = ARGV[6], nil, nil
local wait, stuck = num(ARGV[7]), false
if state == 'released' and ARGV[7] ~= '' then
  add('fruitless', 1)
  local waits = {}
  for ms in ARGV[7]:gmatch('%d+') do waits[#waits + 1] = num(ms) end
  wait = waits[math.min(num(run.fruitless), #waits)] or 0
end
if state == 'completed' or state == 'failed' then
  event = 'job.' .. state
elseif run.control == 'cancel' or run.control == 'now' then
  state, event = 'cancelled', 'job.cancelled'
elseif run.control == 'pause' or state == 'paused' then
  state, event = 'paused', 'job.interrupt'
elseif state == 'released' and num(run.fruitless) > MAX_FRUITLESS then
  state, event, stuck = 'paused', 'job.interrupt', true
else
  event = state == 'retrying' and 'job.retry_scheduled' or 'job.interrupt'
  if wait > 0 then
    state, time = 'retrying', now + wait
    put('at', int(time))
    put('wait', int(wait))
  else
    state, time = 'queued', now + PUT_BACK
  end
end
put('control', '')
put('result', ARGV[9])
put('error', ARGV[10])
entry(event, ARGV[11], state)
if stuck then entry('job.paused', NO_PROGRESS, state) end
become(state, time)
return answer('OK')
