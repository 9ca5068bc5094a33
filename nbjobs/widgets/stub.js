/** Draws a card with the code that travels once for all cards of a kernel, in a model of its own: `code.py`. */
export default {
  /** @param {any} context */
  async render(context) {
    const { el, host, model } = context;
    const code = await host.getWidget(model.get("code")).catch(() => null);
    if (code) return code.exports.render(context);
    el.textContent = "This card is not live: its kernel is gone. Run the cell again, or nbjobs.attach(…).";
  },
};
