#!lua flags=allow-oom
-- 5 op (cancel now pause unpause accept restart)  6 n_seen  7 d
if gone then return answer('GONE') end
if asked_since(ARGV[6]) then return answer('AGAIN') end   -- this call, or another's: look again
if larger(7, MAX_EVENT) then return larger(7, MAX_EVENT) end
if END[run.state] then return answer('ENDED') end

local op, held, lease_end = ARGV[5], run.owner ~= '', num(run.lease_until)
local cancelling = run.control == 'cancel' or run.control == 'now'
local function done(event, state, time)
  entry(event, ARGV[7], state)
  put('control_n', run.n)
  become(state, time)
  return answer('OK')
end
local function ask(control, event, state, time)  -- the holder sees it in its next reply
  put('control', control)
  return done(event, state, time)
end

if op == 'cancel' or op == 'now' then
  if not held then return done('job.cancelled', 'cancelled') end
  if run.control == op or run.control == 'now' then return answer('STATE') end
  return ask(op, 'job.cancelling', 'cancelling', lease_end)
end
if op == 'pause' then
  if cancelling or run.control == 'pause' or run.state == 'paused' then return answer('STATE') end
  if held then return ask('pause', 'job.pausing', 'pausing', lease_end) end
  if run.state ~= 'scheduled' then put('at', '0') end   -- a start time is kept, a retry's wait is not
  return done('job.paused', 'paused')
end
if op == 'unpause' and run.control == 'pause' then return ask('', 'job.unpaused', 'running', lease_end) end
if run.state ~= 'paused' then return answer('STATE') end

if op == 'restart' then
  local refusal = drop(1)
  if refusal then return refusal end
end
if num(run.fruitless) > 0 then put('fruitless', '0') end
if op == 'accept' then put('accept', int(num(run.attempt) + 1)) end
if num(run.at) > now then return done('job.unpaused', 'scheduled', num(run.at)) end
put('at', '0')
return done('job.unpaused', 'queued', now + LOST_WAKE_UP)
