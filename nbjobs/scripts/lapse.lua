#!lua flags=allow-oom
-- 5 owner ('' from the sweeper)  6 max_crashes  7 crash_wait 'ms,ms,ms'  8 d
if gone then
  look_at(nil)
  redis.call('ZREM', KEYS[5], id)
  return answer('GONE')
end
if larger(8, MAX_EVENT) then return larger(8, MAX_EVENT) end
if ARGV[5] ~= '' then
  if not holds(ARGV[5]) then return answer(run.last_owner == ARGV[5] and 'AGAIN' or 'FENCED') end
elseif run.owner == '' then                      -- the sweeper's look at a run that nobody holds: `due` is put right
  if END[run.state] or run.state == 'paused' then
    look_at(nil)
    return answer('NONE')
  end
  if num(run.at) > now then
    look_at(num(run.at))
    return answer('EARLY')
  end
  look_at(now + LOST_WAKE_UP)
  return answer('QUEUE')
elseif num(run.lease_until) > now then
  look_at(num(run.lease_until))
  return answer('HELD')
end

local control = run.control
local function interrupted(state, event, time)   -- job.interrupt comes first, always
  entry('job.interrupt', ARGV[8], state)
  if event then entry(event, '', state) end
  become(state, time)
  return answer('OK')
end
put('last_owner', run.owner)
put('owner', '')
put('control', '')
if control == 'cancel' or control == 'now' then return interrupted('cancelled', 'job.cancelled') end
if control == 'pause' then return interrupted('paused') end

add('crashes', 1)
if num(run.crashes) > num(ARGV[6]) then return interrupted('dead', 'job.dead') end
local waits = {}
for ms in ARGV[7]:gmatch('%d+') do waits[#waits + 1] = num(ms) end
local wait = waits[math.min(num(run.crashes), #waits)] or 0
if wait == 0 then return interrupted('queued', nil, now + PUT_BACK) end
put('at', int(now + wait))
return interrupted('retrying', 'job.retry_scheduled', now + wait)
